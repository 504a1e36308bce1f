"""`python -m lockstep verify FILE`: what of an archive holds, and what does not.

Six checks, one line each. Exit status 0 if all hold, 1 if one does not, 2 if the file cannot be
used at all. Nothing of the archive is executed or unpickled, and no framework is imported.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lockstep.archive import archive_reader, checks, layout
from lockstep.archive.archive_reader import Archive, printable
from lockstep.archive.checks import Check
from lockstep.errors import UserError
from lockstep.study import Study, config

HOLD, FAIL = 0, 1
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
LATER = ("records", "parity", "derived", "source")


def main(path: Path, *, sha256: str | None = None, figures: bool = False) -> int:
    """Check an archive and print a line per check; returns the exit status.

    Raises:
        UserError: the file cannot be used.
    """
    with _one_thread(), archive_reader.opened(path) as archive:
        found = []
        for check in verified(archive, sha256=sha256, figures=figures):
            print("\n".join(check.lines()), flush=True)
            found.append(check)
    count = sum(len(check.wrong) for check in found)
    if count:
        print(f"{path}: DOES NOT HOLD: {count} finding{'s' * (count > 1)}")
        return FAIL
    skipped = [check.name for check in found if check.skipped]
    rest = f" (not checked: {', '.join(skipped)})" if skipped else ""
    print(f"{path}: holds{rest}")
    return HOLD


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Load NumPy's BLAS with one thread: several wait for each other longer than such small arrays
    take. What the person has set stays, and no other process sees this.
    """
    if BLAS_THREADS in os.environ:
        yield
        return
    os.environ[BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[BLAS_THREADS]


def verify(path: Path, *, sha256: str | None = None, figures: bool = False) -> list[Check]:
    """Return what holds and what does not.

    Args:
        sha256: that the file was published with.
        figures: draw the report's figures again.

    Raises:
        UserError: the file cannot be used.
    """
    with archive_reader.opened(path) as archive:
        return list(verified(archive, sha256=sha256, figures=figures))


def verified(
    archive: Archive, *, sha256: str | None = None, figures: bool = False
) -> Iterator[Check]:
    """Yield the same of an archive that is open.

    Raises:
        UserError: as `verify`, or packages are missing that the later checks need.
    """
    container = checks.container(archive, sha256)
    yield container
    content = checks.content(archive)
    yield content
    if [w for w in container.wrong if "not the one published" not in w] or content.wrong:
        reason = "not checked, as files of the archive are damaged"
        yield from (Check(name=name, says=reason, skipped=True) for name in LATER)
        return
    try:
        yield from _meaning(archive, figures=figures)
    except ModuleNotFoundError as error:
        if (error.name or "lockstep").startswith("lockstep"):
            raise
        raise UserError(
            f"{archive.path}: container and content hold; {', '.join(LATER)} were not checked, as "
            f"{error.name} is not installed here: run `make setup`"
        ) from error


def _meaning(archive: Archive, *, figures: bool) -> Iterator[Check]:
    """Yield the checks of what the files say; apart, as these need NumPy and pandas."""
    from lockstep.archive import derived_check, records_check, source

    study = archived_study(archive)
    records = records_check.check(archive, study)
    yield records
    with extracted(archive) as folder:
        yield derived_check.parity(archive, study, folder)
        yield derived_check.derived(
            archive, study, folder, records_hold=not records.wrong, figures=figures
        )
        yield source.check(archive, study, folder / layout.PACKAGE)


def archived_study(archive: Archive) -> Study:
    """Return the archived study as it was run; its paths are names in the archive.

    Raises:
        UserError: its config is missing, or is not one that this version reads.
    """
    name = f"{layout.RESULTS}{archive.study}/study.json"
    try:
        section = archive.json_of(name)
        config.check_complete(section)
        study = Study(section)
        study.root, study.data = Path(layout.RESULTS) / archive.study, Path("data")
        found = study.name, study.runs, study.traces(), study.blocks
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{archive.path}: {name} is not the config of a study that this version of Lockstep "
            f"reads: {printable(str(error)[:200])} (use the version that is in its source/)"
        ) from error
    if found[0] != archive.study:
        raise UserError(f"{archive.path}: {name} is of study {found[0]!r}")
    return study


@contextlib.contextmanager
def extracted(archive: Archive) -> Iterator[Path]:
    """Give a folder with the files that the report is made of, its figures, and the code."""
    below = f"{layout.RESULTS}{archive.study}/"
    records = tuple(below + name for name in ("study.json", "runs/", "blocks/", "parity/"))
    code = (".py", ".j2", ".css", ".json", ".yaml")

    def is_read(name: str) -> bool:
        if name.startswith(f"{below}report/figures/"):
            return name.endswith(".svg")
        if name.startswith(records):
            return name.endswith((".json", ".csv", "steps.npz"))
        return name.startswith(f"{layout.SOURCE}workflow/") and name.endswith(code)

    with tempfile.TemporaryDirectory(prefix="lockstep-verify-") as scratch:
        folder = Path(scratch).resolve()
        archive_reader.extract(archive, is_read, folder)
        yield folder


@contextlib.contextmanager
def study_folder(path: Path) -> Iterator[Path]:
    """Give the folder of a study that may be an archive: then its records are extracted.

    Raises:
        UserError: the archive cannot be used, or its container or content does not hold.
    """
    if not (path.is_file() or (path / layout.HASHES).is_file()):
        yield path
        return
    with archive_reader.opened(path) as archive:
        for check in (checks.container(archive), checks.content(archive)):
            if check.wrong:
                raise UserError(f"{path}: does not hold: {check.wrong[0]}; run verify")
        with extracted(archive) as folder:
            yield folder / layout.RESULTS / archive.study
