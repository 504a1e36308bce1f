"""Files that are either whole or absent, and the hashes that name their content."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lockstep.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of a quota that is reached."""

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.\d+\.tmp")
"""Names of what `atomic` has not finished."""

REMEDIES = {
    **dict.fromkeys(FULL, "free some space and start again"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM), "let this user write there, or use another folder"
    ),
    errno.EROFS: "use a folder that can be written (paths in the config)",
    errno.ENOTDIR: "a file is where a folder should be; move it away",
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENOLCK),
        "the file system does not work; start again when it does",
    ),
}
"""What a person does about errors of the system that are no fault of ours."""


def explained(error: OSError, otherwise: object) -> str | None:
    """Return one line for an error of the system; None for one that a person cannot mend.

    Args:
        otherwise: what to name if the system names no file.
    """
    remedy = REMEDIES.get(error.errno or 0)
    why = os.strerror(error.errno or 0).lower()
    return f"{error.filename or otherwise}: {why}; {remedy}" if remedy else None


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys and no white space: equal values, equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 (hex) of a file's content, read as a stream."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's content survive a power failure."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


@contextlib.contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Say of what is written in the block that there was no room for it.

    Raises:
        UserError: the disk is full or a quota is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError(
                f"{path}: cannot be written, {os.strerror(error.errno).lower()}; "
                "free some space and start again (nothing half-written was kept)"
            ) from error
        raise


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it becomes `path` only if the block succeeds.

    The temporary may be written as a file or as a folder. It is synced before it is renamed, so
    that whoever sees `path` sees all of it. A folder that is already there is replaced.

    Raises:
        UserError: the disk is full or a quota is reached; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{_node()}.{os.getpid()}.tmp")
    remove(temporary)
    try:
        with room_for(path):
            yield temporary
            if temporary.is_dir():
                for child in sorted(temporary.rglob("*")):
                    if child.is_file():
                        sync_file(child)
                sync_folder(temporary)
                remove(path)
            else:
                sync_file(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        remove(temporary)


def abandoned(path: Path) -> Iterator[Path]:
    """Yield temporaries of `path` whose process was one of this machine's and is not any more."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.{_node()}.*.tmp"):
        number = temporary.name.split(".")[-2]
        if number.isdecimal() and not Path(f"/proc/{number}").exists():
            yield temporary


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """Yield a temporary folder, and remove those of this machine whose process was killed.

    A process holds a lock in its folder, which ends with it.
    """
    prefix = f"lockstep-run-{_node()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*/.lock"):
        with contextlib.suppress(OSError), open(left, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(left.parent)
    with (
        tempfile.TemporaryDirectory(prefix=prefix) as folder,
        open(Path(folder, ".lock"), "w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _node() -> str:
    """Return a word for this machine: of those that share a folder several may have one pid."""
    return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]


def size(folder: Path) -> int:
    """Return how many bytes the files below a folder have, while others may be removing them."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people (indented, keys in their order) atomically.

    Raises:
        ValueError: `value` holds NaN or infinity, which JSON cannot say.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder, not a file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); remove it and start again") from error
