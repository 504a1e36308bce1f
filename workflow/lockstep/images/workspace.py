"""Where an image grows: a folder that is gone afterwards, and processes that are too."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from lockstep.images.enter import package_folder

PREFIX = "lockstep-image-"
OWNER = ".owner"


@contextlib.contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """Yield a new folder that goes when the build ends, also when it is told to stop.

    What a killed build left is removed by the next one: its owner's lock is free.
    """
    for left in folder.glob(f"{PREFIX}*"):
        if _abandoned(left):
            _remove(left)
    new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=folder))
    new.chmod(0o711)  # subordinate ids must come through
    with open(new / OWNER, "w") as owner, _stoppable():
        fcntl.flock(owner, fcntl.LOCK_EX)
        # Not before: another build would take it for what a killed one left.
        work = new.rename(folder / new.name.removeprefix("."))
        try:
            yield work
        finally:
            _remove(work)


def _abandoned(folder: Path) -> bool:
    try:
        with open(folder / OWNER) as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or another user's, or just being made
        return False
    return True


def _remove(folder: Path) -> None:
    """Remove a folder in which files may belong to subordinate ids of this user."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        remove = ["rm", "-rf", "--one-file-system", str(folder)]
        unshare = ["unshare", "--user", "--map-auto", "--map-root-user"]
        subprocess.run([*unshare, *remove], capture_output=True)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end a build as Ctrl-C does: by way of the clean-up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> int:
    """Run a command that starts others; none of them outlives the wait for it."""
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "lockstep.images.watch", *command],
            cwd=folder,
            env={
                **environment,
                "PYTHONPATH": str(package_folder()),
                "LOCKSTEP_LAUNCHER": str(os.getpid()),
            },
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
