"""Where an image grows: a folder that is gone afterwards, and processes that are too."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

from lockstep import files
from lockstep.images import host
from lockstep.images.enter import package_folder

PREFIX = "lockstep-image-"
OWNER = ".owner"
WAIT = 1.0  # seconds between looks for space


@contextlib.contextmanager
def workspace(folder: Path, *, needed: int = 0, purpose: str = "a build") -> Iterator[Path]:
    """Yield a new folder that goes when the build ends, also when it is told to stop.

    What a killed build left is removed by the next one: its owner's lock is free. Where there is
    space, but not beside the builds that go on here, it waits for them.

    Args:
        needed: bytes that it will hold at its fullest.
        purpose: what needs them.

    Raises:
        UserError: there are not so many, and nobody builds here who would give some back.
    """
    told = False
    while True:
        with _one_at_a_time(folder):
            others = _going_on(folder)
            finding = host.space(folder, needed + sum(map(_still_needed, others)), purpose)
            if not others:
                host.require(finding)
            if not finding.fails:
                work, owner = _make(folder, needed)
                break
        if not told:
            print(
                f"lockstep: {finding.found}, other builds here included; waiting for them",
                file=sys.stderr,
            )
            told = True
        time.sleep(WAIT)
    with owner, _stoppable():
        try:
            yield work
        finally:
            _remove(work)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep out who looks for space here at this moment, where the file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path, needed: int) -> tuple[Path, TextIO]:
    """Make a workspace; returns it and the file whose lock says that somebody builds there."""
    new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=folder))
    new.chmod(0o711)  # subordinate ids must come through
    owner = open(new / OWNER, "w")  # noqa: SIM115, its lock ends with it
    owner.write(f"{needed}\n")
    owner.flush()
    fcntl.flock(owner, fcntl.LOCK_EX)
    # Not before: another build would take it for what a killed one left.
    return new.rename(folder / new.name.removeprefix(".")), owner


def _going_on(folder: Path) -> list[Path]:
    """Return the workspaces of builds that go on; what killed ones left is removed."""
    found = []
    for path in folder.glob(f"{PREFIX}*"):
        try:
            with open(path / OWNER) as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_uid == os.getuid():
                _remove(path)
        except BlockingIOError:
            found.append(path)
        except OSError:  # just going, another user's, or on a file system without locks
            continue
    return found


def _still_needed(work: Path) -> int:
    """Return the bytes that a build is going to write; 0 if it does not say."""
    try:
        needed = int((work / OWNER).read_text())
    except (OSError, ValueError):
        return 0
    written = 0
    for folder, _, names in os.walk(work):
        for name in names:
            with contextlib.suppress(OSError):
                written += Path(folder, name).lstat().st_blocks * 512
    return max(0, needed - written)


def _remove(folder: Path) -> None:
    """Remove a workspace, in which files may belong to subordinate ids of this user.

    Its owner's file goes last: without it nobody would know that the rest may be removed.
    """
    for path in _content(folder):
        files.remove(path)
    left = [str(path) for path in _content(folder)]
    remove = ["unshare", "--user", "--map-auto", "--map-root-user", "rm", "-rf"]
    if left:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run([*remove, "--one-file-system", *left], capture_output=True)
    if _content(folder):
        print(
            f"lockstep: {folder}: cannot be removed, its files belong to subordinate ids; "
            f"{' '.join(remove)} {folder} does it (util-linux 2.38 or later), or an administrator",
            file=sys.stderr,
        )
        return
    shutil.rmtree(folder, ignore_errors=True)


def _content(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name != OWNER]
    except FileNotFoundError:
        return []


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


def run(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    log: Path,
    *,
    output: Path | None = None,
) -> int:
    """Run a command that starts others; none of them outlives the wait for it.

    Args:
        folder: where.
        log: file for what it says.
        output: file for its standard output, if that is not the log.
    """
    with open(log, "wb") as stream, open(output or os.devnull, "wb") as own:
        process = subprocess.Popen(
            [sys.executable, "-m", "lockstep.images.watch", *command],
            cwd=folder,
            env={
                **environment,
                "PYTHONPATH": str(package_folder()),
                "LOCKSTEP_LAUNCHER": str(os.getpid()),
            },
            stdin=subprocess.DEVNULL,
            stdout=own if output else stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
