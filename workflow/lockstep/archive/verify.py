"""`python -m lockstep verify FILE`: what of an archive holds, and what does not.

Six checks, one line each. Exit status 0 if all hold, 1 if one does not, 2 if the file cannot be
used at all. Nothing of the archive is executed or unpickled, and no framework is imported. The
first two checks need the standard library only.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.archive import archive_reader, layout
from lockstep.archive.archive_reader import Archive, printable
from lockstep.archive.zip_container import Damaged
from lockstep.errors import UserError
from lockstep.study import Study, config

HOLD, FAIL = 0, 1
LATER = ("records", "parity", "derived", "source")
READ = (".json", ".csv", "steps.npz", ".svg", ".py", ".j2", ".css", ".yaml")
"""How the names of files end that reports are made of and from."""
SHOWN = 20  # findings of a check that the terminal names


@dataclass(frozen=True, kw_only=True)
class Check:
    """One of the things that are checked."""

    name: str  # of the check
    says: str  # what holds
    # what does not hold, each naming the file and, where it is of one, the run
    wrong: Sequence[str] = ()
    skipped: bool = False  # whether it could not be checked; `says` then has the reason

    def lines(self) -> list[str]:
        """Return what a person sees."""
        if not self.wrong:
            status = "skipped" if self.skipped else "holds"
            return [f"{status:7}  {self.name}: {printable(self.says)}"]
        more = [f"and {len(self.wrong) - SHOWN} more"] if len(self.wrong) > SHOWN else []
        count = f"{len(self.wrong)} finding{'s' * (len(self.wrong) > 1)}"
        found = [*self.wrong[:SHOWN], *more]
        return [f"FAILS    {self.name}: {count}", *(f"           {printable(w)}" for w in found)]


def guarded(where: str, check: Callable[..., Iterable[str]], *given: Any) -> Iterator[str]:
    """Yield what `check` finds of one file.

    Whatever a damaged file raises in it is a finding, but for a disk that cannot be read.
    """
    try:
        yield from check(*given)
    except (OSError, Damaged, ImportError):
        raise
    except Exception as error:
        yield f"{where}: cannot be used ({error!r:.300})"


def container(archive: Archive, sha256: str | None = None) -> Check:
    """Is every byte accounted for, and is it the file that was published?

    Args:
        sha256: that the file was published with.

    Raises:
        UserError: `sha256` is given for a folder.
    """
    reader = archive.reader
    wrong = [f"{name}: {why}" for name, why in reader.flaws]
    if sha256 is not None and archive.sha256 is None:
        raise UserError(
            f"{archive.path}: --sha256 is of the archive's file, and this is a folder; verify the "
            "file, or compare the folder with `sha256sum -c manifest-sha256.txt`"
        )
    if sha256 is not None and archive.sha256 != sha256.strip().lower():
        wrong.insert(0, f"{archive.path.name}: has sha256 {archive.sha256}, not the one published")
    listed, there = {*archive.hashes, layout.HASHES}, {*reader.sizes}
    wrong += [f"{name}: is listed, but missing" for name in sorted(listed - there)]
    wrong += [f"{name}: is not listed in {layout.HASHES}" for name in sorted(there - listed)]
    own = f"sha256 {archive.sha256}" if archive.sha256 else "an unzipped folder"
    published = ", as published" if sha256 else ""
    says = f"{len(reader.sizes)} files, no byte besides; {own}{published}"
    return Check(name="container", says=says, wrong=wrong)


def content(archive: Archive) -> Check:
    """Has every file its listed sha256? Hashed on as many cores as there are."""
    reader, sizes = archive.reader, archive.reader.sizes
    changed = f"was changed (its sha256 is not the one in {layout.HASHES})"

    def wrong(name: str) -> str | None:
        total, crc = hashlib.sha256(), 0
        for piece in reader.pieces(name):
            total.update(piece)
            crc = zlib.crc32(piece, crc)
        if total.hexdigest() != archive.hashes.get(name, total.hexdigest()):
            return f"{name}: {changed}"
        return None if reader.crcs.get(name, crc) == crc else f"{name}: its CRC-32 is wrong"

    names = [name for name in sizes if name in archive.hashes or name == layout.HASHES]
    names.sort(key=lambda name: (-sizes[name], name))  # no core ends with a large one
    with concurrent.futures.ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        found = sorted(filter(None, pool.map(wrong, names)))
    size = sum(sizes[name] for name in names) / 1e6
    says = f"{len(names)} files, {size:.1f} MB, have the listed sha256"
    return Check(name="content", says=says, wrong=found)


# All of them ---------------------------------------------------------------------------------


def main(path: Path, *, sha256: str | None = None, figures: bool = False) -> int:
    """Check an archive and print a line per check; returns the exit status.

    Raises:
        UserError: the file cannot be used.
    """
    # Before NumPy is loaded: threads wait for each other longer than such small arrays take.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with archive_reader.opened(path) as archive:
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


def verified(
    archive: Archive, *, sha256: str | None = None, figures: bool = False
) -> Iterator[Check]:
    """Yield what holds and what does not of an archive that is open.

    Args:
        sha256: that the file was published with.
        figures: draw the report's figures again.

    Raises:
        UserError: it cannot be used, or packages are missing that the later checks need.
    """
    form = container(archive, sha256)
    yield form
    hashed = content(archive)
    yield hashed
    if any("not the one published" not in wrong for wrong in (*form.wrong, *hashed.wrong)):
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
    from lockstep.archive import semantic_checks, source
    from lockstep.records import load

    study = archived_study(archive)
    with extracted(archive) as folder:
        package = folder / layout.PACKAGE
        again = Study(study.config)
        again.root, again.data = folder / study.root, folder / study.data
        records = load.load(again)
        found = semantic_checks.records(archive, study, records)
        yield found
        yield semantic_checks.parity(archive, study, package)
        sound = None if found.wrong else records
        yield semantic_checks.derived(archive, study, package, sound, figures=figures)
        yield source.check(archive, study, package)


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
    read = {name: name for name in archive.hashes
            if name.endswith(READ) and not name.startswith(layout.DATA)}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="lockstep-verify-") as scratch:
        folder = Path(scratch).resolve()
        archive_reader.extract(archive, read, folder)
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
        for check in (container(archive), content(archive)):
            if check.wrong:
                raise UserError(f"{path}: does not hold: {check.wrong[0]}; run verify")
        with extracted(archive) as folder:
            yield folder / layout.RESULTS / archive.study
