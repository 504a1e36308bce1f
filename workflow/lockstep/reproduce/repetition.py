"""`python -m lockstep reproduce FILE --into FOLDER`: run an archived study again, and compare.

Everything comes from the archive: source, config, definitions and locks. In FOLDER are then
`lockstep` (the source, with its results), `archived` (the archive's records, extracted when the
code has ended, so that it could not read what it is compared with) and `reproduction.json`.
"""

import contextlib
import datetime
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.archive import archive_reader, layout, verify
from lockstep.archive.archive_reader import Archive, printable
from lockstep.archive.zip_container import reason
from lockstep.errors import UserError
from lockstep.reproduce import deployment_outcome, reproduction_outcome, reproduction_plan
from lockstep.reproduce.reproduction_outcome import YES, Outcome
from lockstep.reproduce.reproduction_plan import ARCHIVED, CONFIG, RUN, Plan
from lockstep.study import Study

SCHEMA = "lockstep-reproduction/2"
SUCCEEDED, DIFFERS, NOT_RUN = 0, 1, 2
FAILED = "could not be run to its end"


def main(
    path: Path,
    *,
    sha256: str | None = None,
    source: Path | None = None,
    dry_run: bool = False,
    yes: bool = False,
    **chosen: Any,
) -> int:
    """Run an archived study again; returns the exit status.

    Args:
        sha256: that the file was published with.
        source: a checkout whose code must be the archived one.
        chosen: what is run and how (`reproduction_plan.plan`).

    Raises:
        UserError: the archive or the folder cannot be used, or nobody said yes.
    """
    # One open file: what is run is what was verified, whatever happens to its name meanwhile.
    with archive_reader.opened(path) as archive:
        checks = list(verify.verified(archive, sha256=sha256))
        problems = [line for check in checks if check.wrong for line in check.lines()]
        if problems:
            print("\n".join(problems))
            print(f"{path}: does not hold; nothing was run")
            return DIFFERS
        if source is not None:
            other = reproduction_plan.other_source(archive, source)
            for text in other[:50]:
                print(printable(f"not as in {source}: {text}"))
            if any(text.startswith(RUN) for text in other):
                print(f"{path}: its code is not that of {source}; nothing was run")
                return DIFFERS
        plan = reproduction_plan.plan(archive, **chosen)
        trusted = sha256 is not None or source is not None
        print("\n".join(reproduction_plan.lines(plan, archive, trusted=trusted)), flush=True)
        if dry_run:
            return SUCCEEDED
        _ask(yes)
        set_up(archive, plan)
        status = subprocess.run(plan.command, cwd=plan.checkout, env=_environment()).returncode
        records = plan.folder / ARCHIVED
        records.mkdir()
        archive_reader.extract(archive, _below(archive, layout.RESULTS), records.resolve())
    return conclude(plan, path, archive.sha256, status)


def _ask(yes: bool) -> None:
    """Let a person say whether the archive's code shall be run.

    Raises:
        UserError: the answer is no, or there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("this runs the code of the archive; add --yes if it shall")
    try:
        answer = input("This runs the code of the archive. Go on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise UserError("nothing was run")


def set_up(archive: Archive, chosen: Plan) -> None:
    """Write source, config and data into the folder; all or nothing.

    Raises:
        UserError: nothing can be written there, a link leads out, or two files would lie in one
            place.
    """
    new = not chosen.folder.exists()
    try:
        chosen.checkout.mkdir(parents=True)
        _fill(archive, chosen, chosen.checkout.resolve())
    except BaseException as error:
        with contextlib.suppress(OSError):  # where nothing could be written, nothing is left
            files.remove(chosen.folder if new else chosen.checkout)
        if not isinstance(error, OSError):
            raise
        where = error.filename or chosen.folder
        raise UserError(
            f"{where}: cannot be written, {reason(error)}; name another folder (--into)"
        ) from error


def _fill(archive: Archive, chosen: Plan, root: Path) -> None:
    archive_reader.extract(archive, _below(archive, layout.SOURCE), root)
    package = root / "workflow" / "lockstep"
    places, identities = reproduction_plan.data_places(archive, chosen.config, package)
    if unsafe := layout.unsafe(places.values()):  # a dataset's name may be anything here
        raise UserError(f"{archive.path}: running it would need {unsafe}; nothing was written")
    archive_reader.extract(archive, places, root)
    for place, identity in identities.items():
        files.write_json(root / place, {**files.read_json(root / place), "identity": identity})
    files.write_json(root / CONFIG, chosen.config)


def _below(archive: Archive, folder: str) -> dict[str, str]:
    """Return the files in a folder of an archive, each with its name there."""
    return {n: n.removeprefix(folder) for n in archive.hashes if n.startswith(folder)}


def _environment() -> dict[str, str]:
    """Return the environment of the run: this Python, and no package of ours but the archive's."""
    hidden = ("PYTHONPATH", "LOCKSTEP_STUDY", "LOCKSTEP_INSIDE")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    # Else `python -m` looks for modules in the checkout first, where a json.py may lie.
    return kept | {"PYTHONSAFEPATH": "1"}


def conclude(chosen: Plan, path: Path, sha256: str | None, status: int) -> int:
    """Compare what was run with the archived records, write it down and say it; returns the exit
    status.

    Args:
        path, sha256: of the archive.
        status: that the workflow ended with.
    """
    archived = Study.load(chosen.folder / ARCHIVED / chosen.config["study"])
    again = Study(chosen.config)
    again.root = chosen.checkout / again.root
    found = reproduction_outcome.outcomes(archived, again, chosen.runs)
    found += deployment_outcome.outcomes(archived, again)
    conclusion = reproduction_outcome.conclusion(found) if status == 0 else FAILED
    record = chosen.folder / "reproduction.json"
    files.write_json(
        record,
        {
            "schema": SCHEMA,
            "study": again.name,
            "archive": path.name,
            "sha256": sha256,
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "snakemake_status": status,
            "conclusion": conclusion,
            "outcomes": [asdict(outcome) for outcome in found],
        },
    )
    if status:
        print(f"the workflow ended with status {status}")
    print("\n".join(printable(line) for line in _lines(found)))
    print(f"study {again.name}: {conclusion}\nrecord: {record}")
    return {YES: SUCCEEDED, FAILED: NOT_RUN}.get(conclusion, DIFFERS)


def _lines(found: Sequence[Outcome]) -> list[str]:
    lines = [f"{o.outcome:14}  {o.measure}: {o.what}: {o.says}" for o in found]
    differs = Counter(text for outcome in found for text in outcome.differs)
    return [*lines, *(f"differs from the record: {text} ({n} runs)" for text, n in differs.items())]
