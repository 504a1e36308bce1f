"""Keeps two processes from making the same dataset at once: two studies may share their data."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(folder: Path, *, shared: bool) -> Iterator[bool]:
    """Hold a folder, with others that share it or alone; yields whether it had to wait for that.

    A lock of the operating system, which ends with its process however that ends. Where the file
    system has none, nothing is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    waited = False
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(descriptor, kind)
            waited = True
        except OSError:
            pass
        yield waited
    finally:
        os.close(descriptor)
