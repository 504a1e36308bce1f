"""Array files of an archive: read without unpickling, and only where they stay small in memory."""

import zipfile
from pathlib import Path

import numpy as np

UNFOLDED = 64  # times its own size that an array file may take in memory
SPARE = 1 << 20


class Unreadable(Exception):
    """An array file that must not be loaded, or cannot be; the message says why."""


def problem(path: Path) -> str | None:
    """Return why an array file must not be loaded, None if it may be."""
    try:
        with zipfile.ZipFile(path) as arrays:
            size = sum(info.file_size for info in arrays.infolist())
    except Exception as error:  # a damaged file raises almost anything
        return f"not readable ({error})"
    if size > UNFOLDED * path.stat().st_size + SPARE:
        return f"would unfold to {size} bytes; not touched"
    return None


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file, by name.

    Raises:
        Unreadable: it is damaged, holds objects, or must not be loaded.
    """
    why = problem(path)
    if why:
        raise Unreadable(why)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except Exception as error:  # a damaged file raises almost anything
        raise Unreadable(f"not readable ({error})") from error
