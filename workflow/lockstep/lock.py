"""Locks of the operating system on a file, which end with their process however that ends."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lockstep import terminal

ATTEMPTS = 20
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def held(
    path: Path, *, shared: bool = False, waiting: str | Callable[[], str] | None = None
) -> Iterator[bool]:
    """Hold a file's lock until the block ends; yields whether it had to wait for that.

    Where the file system has no locks (Lustre without ``flock``, NFS without ``lockd``) nothing is
    held: a person who starts two of one thing there is not kept from it.

    Args:
        path: the file; made if it is not there, with its folder.
        shared: hold it with others that share it, and not alone.
        waiting: what to say if somebody else holds it, on the terminal of a workflow too.
    """
    kind, waited = fcntl.LOCK_SH if shared else fcntl.LOCK_EX, False
    while True:
        descriptor = _open(path)
        try:
            waited |= _lock(descriptor, kind, waiting)
            # Who held it may have removed the file: then its lock keeps nobody out any more.
            if _is_still(path, descriptor):
                yield waited
                return
        finally:
            os.close(descriptor)


def _open(path: Path) -> int:
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                if error.errno not in UNWRITABLE or not path.exists():
                    raise
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # another user's
        # Who held a lock in that folder may remove the folder at this moment.
        except (FileNotFoundError, FileExistsError):
            if not attempts_left:
                raise
    raise AssertionError


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, kind: int, waiting: str | Callable[[], str] | None) -> bool:
    """Lock an open file if its file system can; returns whether somebody else had it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting:
            terminal.say(f"{waiting if isinstance(waiting, str) else waiting()}, waiting")
        fcntl.flock(descriptor, kind)
        return True
    except OSError:
        pass
    return False
