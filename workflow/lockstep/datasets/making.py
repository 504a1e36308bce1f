"""Who makes a dataset's folder: one at a time, and what is finished is not made again.

Its path holds the identity of what determines it, and others may be reading it.
"""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lockstep import files, lock


def finished(folder: Path) -> bool:
    """Whether a dataset is all there: its manifest is written last."""
    return (folder / "manifest.json").is_file()


def partial(folder: Path) -> Path:
    """Return the folder beside a dataset's own in which it is made."""
    return folder.with_name(f".{folder.name}.partial")


def others(folder: Path) -> Iterator[Path]:
    """Yield the folders in which a dataset of this name was being made under another identity."""
    name, _, identity = folder.name.rpartition("-")
    for path in sorted(folder.parent.glob(f".{glob.escape(name)}-*.partial")) if name else ():
        other = path.name.removeprefix(f".{name}-").removesuffix(".partial")
        if len(other) == len(identity) and other != identity and "-" not in other:
            yield path


@contextmanager
def held(folder: Path, *, shared: bool = False) -> Iterator[bool]:
    """Hold the lock of a dataset's folder until the block ends; yields whether it is to be made.

    Args:
        shared: hold it with others that share it, and not alone.
    """
    waiting = f"another process makes {folder.name}"
    with lock.held(partial(folder) / "lock", shared=shared, waiting=waiting):
        missing = not finished(folder)
        if not missing:
            files.remove(partial(folder))
        yield missing
