"""One at a time, where the file system can see to it."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep import lock
from tests.conftest import PATIENCE, environment

HOLD = """
import sys
from pathlib import Path
from lockstep import lock
with lock.held(Path(sys.argv[1]), shared=len(sys.argv) > 2, waiting="it is taken") as waited:
    print(waited, flush=True)
    sys.stdin.readline()
"""


def hold(path: Path, *more: str) -> subprocess.Popen:
    """Hold a lock in another process until it is told to let go."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, path, *more],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_one_says_that_it_waits_and_knows_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    first = hold(path)
    assert first.stdout.readline() == "False\n"
    second = hold(path)
    assert second.stderr.readline() == "lockstep: it is taken, waiting\n"
    first.communicate("\n", timeout=PATIENCE)
    assert second.communicate("\n", timeout=PATIENCE)[0] == "True\n"


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(tmp_path: Path) -> None:
    """Its holder may clean up; whoever comes next makes the file anew and would hold it too."""
    path = tmp_path / "lock"
    first = hold(path)
    assert first.stdout.readline() == "False\n"
    second = hold(path)
    assert second.stderr.readline() == "lockstep: it is taken, waiting\n"
    path.unlink()
    third = hold(path)
    assert third.stdout.readline() == "False\n"
    first.communicate("\n", timeout=PATIENCE)
    assert second.stderr.readline() == "lockstep: it is taken, waiting\n"
    third.communicate("\n", timeout=PATIENCE)
    assert second.communicate("\n", timeout=PATIENCE)[0] == "True\n"


def test_a_lock_ends_with_a_killed_holder_and_can_be_shared(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for more in ((), ("shared",), ("shared",)):
        holder = hold(path, *more)
        assert holder.stdout.readline() == "False\n"
        if not more:
            holder.kill()
            holder.communicate(timeout=PATIENCE)
    with pytest.raises(BlockingIOError), open(path) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(descriptor: object, kind: int) -> None:
        raise OSError(number, "as Lustre and NFS may say")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock.held(tmp_path / "lock") as waited:
        assert not waited


def test_a_file_that_another_user_made_is_locked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    first = hold(path)
    assert first.stdout.readline() == "False\n"
    real = os.open

    def refuse(name: object, flags: int, *more: object) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return real(name, flags, *more)

    monkeypatch.setattr(os, "open", refuse)
    descriptor = lock._open(path)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    with pytest.raises(PermissionError), lock.held(tmp_path / "none"):
        pass
    first.communicate("\n", timeout=PATIENCE)
