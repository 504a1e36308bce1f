"""Whether archived code wrote a file as this version does: else a difference is no finding."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockstep import __version__, code


def alike(module: str, manifest: Mapping[str, Any], package: Path, *beside: Path) -> bool:
    """Whether what a module writes would be the same.

    Args:
        module: its dotted name.
        manifest: of the archive, which names the version.
        package: the archived code.
        beside: files of this package that the module reads.
    """
    if manifest["lockstep"] != __version__:  # what is written names it
        return False
    try:
        same = all(
            package.joinpath(path.relative_to(code.PACKAGE)).read_bytes() == path.read_bytes()
            for path in beside
        )
        return same and code.digest(module, package=package) == code.digest(module)
    except (OSError, ImportError, SyntaxError, ValueError):
        return False
