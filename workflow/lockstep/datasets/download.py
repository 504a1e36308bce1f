"""Fetching through torchvision: its addresses, its checksums; all files or none."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.errors import UserError


def fetch(dataset: Any, raw: Path, pattern: str, what: str) -> None:
    """Download a torchvision dataset and keep its raw files.

    Args:
        dataset: a class of `torchvision.datasets` that downloads.
        raw: folder to make.
        pattern: of the names of the files to keep.
        what: these files in words, for a person who can stage them.

    Raises:
        UserError: there is no way out, or what came has the wrong checksum.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            dataset(folder, download=True)
        except (RuntimeError, OSError) as error:
            why = " ".join(str(error).split())  # a line for each mirror
            raise UserError(
                f"{dataset.__name__} could not be downloaded ({why}); put {what} into a folder "
                "and name it as `raw` in the config's datasets"
            ) from error
        with files.atomic(raw) as temporary:
            temporary.mkdir()
            for path in sorted(Path(folder).rglob(pattern)):
                shutil.copy(path, temporary / path.name)
