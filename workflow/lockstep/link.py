"""One file under two names."""

import os
import shutil
from pathlib import Path

from lockstep import files


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where that cannot be.

    Between two file systems there are no links, and some know none at all.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        files.sync_file(target)
