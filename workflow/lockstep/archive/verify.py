"""`python -m lockstep verify FILE`: what of an archive holds, and what does not.

Exit status 0 if all holds, 1 if something does not, 2 if the file cannot be used at all. Imports
no framework, executes nothing of the archive, unpickles nothing.
"""

import contextlib
import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from lockstep.archive import container, described, layout, opened
from lockstep.archive.findings import Check, printable, reason
from lockstep.archive.opened import Opened
from lockstep.errors import UserError

HOLD, FAIL = 0, 1


def main(path: Path, *, digest: str | None = None) -> int:
    """Check an archive and print a line a check; returns the exit status.

    Raises:
        UserError: the file cannot be used.
    """
    checks = verify(path, digest=digest)
    for check in checks:
        print("\n".join(check.lines()))
    wrong = sum(len(check.wrong) for check in checks)
    if wrong:
        print(f"{path}: DOES NOT HOLD: {wrong} findings")
        return FAIL
    skipped = [check.name for check in checks if check.open]
    rest = f" (not checked: {', '.join(skipped)})" if skipped else ""
    print(f"{path}: holds{rest}")
    return HOLD


def verify(path: Path, *, digest: str | None = None) -> list[Check]:
    """Return what holds and what does not.

    Args:
        digest: that the archive was published with; its manifest must have it.

    Raises:
        UserError: the file cannot be used.
    """
    with reading(path) as stream:
        return checked(opened.read(path, stream), digest=digest)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open an archive; what is checked and what is used later are of one and the same file.

    Raises:
        UserError: it is not there, or becomes shorter meanwhile.
    """
    _check_file(path)
    try:
        with open(path, "rb") as stream:
            yield stream
    except container.Malformed as problem:
        raise UserError(f"{path}: {printable(str(problem))}; is it being written?") from problem


def _check_file(path: Path) -> None:
    try:
        there, is_file = path.exists(), path.is_file()
    except OSError as error:  # such as a name that is too long
        raise UserError(f"{path}: cannot be read, {reason(error)}; name another file") from error
    if not is_file:
        raise UserError(f"{path}: {'not a file' if there else 'no such file'}")


def checked(archive: Opened, *, digest: str | None = None) -> list[Check]:
    """Return the same of an archive that is open."""
    checks = list(archive.checks)
    if archive.manifest is None:
        return checks
    if digest is not None:
        own = archive.manifest["digest"]
        same = own == digest.lower()
        wrong = [] if same else [f"{layout.MANIFEST}: has digest {own}, not the one published"]
        checks.append(Check(name="digest", says="is the one published", wrong=wrong))
    threading.Thread(target=_import_ahead).start()
    checks.append(opened.hashes(archive))
    crate = archive.reader.bytes_of(layout.CRATE)
    checks.append(described.check(crate, archive.files))
    if any(check.wrong for check in checks if check.name in ("form", "manifest", "content")):
        reason = "not checked, as files of the archive are damaged"
        return [*checks, Check(name="records, parity, report", says=reason, open=True)]
    return [*checks, *_recheck().numbers(archive)]


def _import_ahead() -> None:
    """Import while the files are hashed, which leaves the interpreter free."""
    with contextlib.suppress(Exception):  # it is raised again where it is missed
        _recheck()


def _recheck() -> ModuleType:
    """Return what compares and computes, which a file that cannot be used needs not."""
    return importlib.import_module("lockstep.archive.recheck")
