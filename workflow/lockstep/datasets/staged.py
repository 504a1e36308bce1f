"""Raw files that a person staged: found by their names, and read or refused in one line."""

import os
from pathlib import Path

from lockstep.errors import UserError


def check_folder(raw: Path, holds: str) -> None:
    """Check that a raw folder is there and can be listed.

    Args:
        holds: what it should hold, in words.

    Raises:
        UserError: it is not there, or not for this user.
    """
    try:
        os.scandir(raw).close()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{raw}: no such folder; it should hold {holds}") from error
    except OSError as error:
        raise unreadable(raw, error) from error


def find(raw: Path, name: str) -> Path | None:
    """Return the first file of that name at any depth; a folder may have the name too."""
    try:
        return next((path for path in sorted(raw.rglob(name)) if path.is_file()), None)
    except OSError as error:
        raise unreadable(raw, error) from error


def read(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> UserError:
    """Return what to say of a file or folder that the system does not let us read."""
    return UserError(f"{error.filename or path}: cannot be read ({error.strerror})")
