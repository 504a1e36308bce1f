"""`python -m lockstep verify FILE`: what of an archive holds, and what does not.

Exit status 0 if all holds, 1 if something does not, 2 if the file cannot be used at all. Imports
no framework, executes nothing of the archive, unpickles nothing.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lockstep.archive import (
    agree,
    completeness,
    container,
    described,
    included,
    layout,
    opened,
    publishing,
    recompute,
    settings,
)
from lockstep.archive.findings import Check, attempted, printable
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
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with open(path, "rb") as stream:
            yield stream
    except container.Malformed as problem:
        raise UserError(f"{path}: {printable(str(problem))}; is it being written?") from problem


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
    checks.append(opened.hashes(archive))
    crate = archive.reader.bytes_of(layout.CRATE)
    checks.append(described.check(crate, archive.files))
    if any(check.wrong for check in checks if check.name in ("form", "manifest", "content")):
        reason = "not checked, as files of the archive are damaged"
        return [*checks, Check(name="records, parity, report", says=reason, open=True)]
    return [*checks, *_numbers(archive)]


def _numbers(archive: Opened) -> Sequence[Check]:
    manifest, listed = archive.manifest, archive.files
    assert manifest is not None
    name = manifest["study"]
    below = f"{layout.RESULTS}{name}/"
    if f"{below}study.json" not in listed:
        raise UserError(f"{archive.path}: holds no config of study {name!r}")

    with tempfile.TemporaryDirectory(prefix="lockstep-verify-") as scratch:
        folder = Path(scratch).resolve()
        opened.extract(archive, lambda member: _is_read(member, name), folder)
        study = settings.study_in(folder, name)
        data = folder / "data"
        package = folder / "source" / "workflow" / "lockstep"
        checks: dict[str, Callable[[], Check]] = {
            "whole": lambda: completeness.whole(study, manifest, folder / layout.STUDY),
            "records": lambda: agree.records(study, listed, data),
            "data": lambda: included.data(archive, data),
            "weights": lambda: included.weights(study, archive),
            "source": lambda: agree.source(study, package),
            "described": lambda: described.study(
                study, manifest["missing"], folder / layout.CRATE, data
            ),
            "pages": lambda: publishing.check(study, manifest, folder / layout.CRATE, package),
            "parity": lambda: recompute.parity(study),
            "report": lambda: recompute.report(study),
        }
        return [attempted(name, check) for name, check in checks.items()]


def _is_read(member: str, study: str) -> bool:
    """Whether a file says something that can be compared with others, besides by its hash."""
    below = f"{layout.RESULTS}{study}/"
    if member.startswith(below):
        large = (layout.FINAL, ".log", "/log.txt")
        aside = (f"{below}report/figures/", f"{below}weights/")
        return not (member.startswith(aside) or member.endswith(large))
    if member.startswith(layout.DATA):
        return member.endswith("/manifest.json")
    code = f"{layout.SOURCE}workflow/lockstep/"
    return member in (layout.STUDY, layout.CRATE) or (
        member.startswith(code) and member.endswith(".py")
    )
