"""`python -m lockstep verify FILE`: what of an archive holds, and what does not.

Six checks, one line each. Exit status 0 if all hold, 1 if one does not, 2 if the file cannot be
used at all. Nothing of the archive is executed or unpickled, and no framework is imported.
"""

import contextlib
import importlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lockstep.archive import archive_reader, layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.check_result import Check
from lockstep.errors import UserError

HOLD, FAIL = 0, 1
LATER = ("records", "parity", "derived", "source")


def main(path: Path, *, sha256: str | None = None, figures: bool = False) -> int:
    """Check an archive and print a line per check; returns the exit status.

    Raises:
        UserError: the file cannot be used.
    """
    with archive_reader.opened(path) as archive:
        checks = []
        for check in verified(archive, sha256=sha256, figures=figures):
            print("\n".join(check.lines()), flush=True)
            checks.append(check)
    count = sum(len(check.wrong) for check in checks)
    if count:
        print(f"{path}: DOES NOT HOLD: {count} finding{'s' * (count > 1)}")
        return FAIL
    skipped = [check.name for check in checks if check.skipped]
    rest = f" (not checked: {', '.join(skipped)})" if skipped else ""
    print(f"{path}: holds{rest}")
    return HOLD


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
    ahead = threading.Thread(target=_import_ahead)
    ahead.start()
    container = archive_reader.container(archive, sha256)
    yield container
    content = archive_reader.content(archive)
    yield content
    ahead.join()
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
    from lockstep.archive import archived_study, derived_check, records_check, source_check
    from lockstep.study import Study

    study = archived_study.of(archive)
    records = records_check.check(archive, study)
    yield records
    with tempfile.TemporaryDirectory(prefix="lockstep-verify-") as scratch:
        folder = Path(scratch).resolve()
        archive_reader.extract(archive, lambda name: _is_read(name, study.name), folder)
        on_disk = Study.at(folder / layout.RESULTS / study.name)
        on_disk.data = folder / "data"
        package = folder / layout.PACKAGE
        yield derived_check.parity(archive, study, package)
        yield derived_check.derived(
            archive, study, on_disk, package, records_hold=not records.wrong, figures=figures
        )
        yield source_check.check(archive, study, package)


def _is_read(name: str, study: str) -> bool:
    """Whether a file is one that the report is made of, or code that is compared."""
    below = f"{layout.RESULTS}{study}/"
    if name.startswith(below):
        inner = name.removeprefix(below)
        kinds = ("study.json", "runs/", "blocks/", "parity/")
        return inner.startswith(kinds) and inner.endswith((".json", ".csv", "steps.npz"))
    code = (".py", ".j2", ".css", ".json", ".yaml")
    return name.startswith(f"{layout.SOURCE}workflow/") and name.endswith(code)


@contextlib.contextmanager
def studies(*paths: Path) -> Iterator[tuple[list[Path], Callable[[Any], Any]]]:
    """Give the folders of studies, some of which may be archives: these are extracted.

    Yields:
        The folders, and what puts the archives' names into a JSON value in place of theirs.

    Raises:
        UserError: an archive cannot be used, or its container or content does not hold.
    """
    with tempfile.TemporaryDirectory(prefix="lockstep-compare-") as scratch:
        folders, names = [], {}
        for number, path in enumerate(paths):
            if path.is_file() or (path / layout.HASHES).is_file():
                folder = Path(scratch, str(number)).resolve()
                folder.mkdir()
                with archive_reader.opened(path) as archive:
                    _extract_records(archive, folder)
                    path_of_study = folder / layout.RESULTS / archive.study
                names[str(path_of_study)] = str(path)
                folders.append(path_of_study)
            else:
                folders.append(path)

        def named(value: Any) -> Any:
            text = json.dumps(value)
            for folder, name in names.items():
                text = text.replace(json.dumps(folder)[1:-1], json.dumps(name)[1:-1])
            return json.loads(text)

        yield folders, named


def _extract_records(archive: Archive, folder: Path) -> None:
    for check in (archive_reader.container(archive), archive_reader.content(archive)):
        if check.wrong:
            raise UserError(f"{archive.path}: does not hold: {check.wrong[0]}; run verify")
    archive_reader.extract(archive, lambda name: _is_read(name, archive.study), folder)


def _import_ahead() -> None:
    """Import while the files are hashed, which leaves the interpreter free."""
    with contextlib.suppress(Exception):  # it is raised again where it is missed
        importlib.import_module("lockstep.archive.derived_check")
