"""`python -m lockstep reproduce FILE --into FOLDER`: run an archived study again, and compare.

Everything comes from the archive: source, config, definitions and locks. In FOLDER are then
`lockstep` (the source, with its results), `archived` (the records of the archive), and
`reproduction.html` with `reproduction.json`.
"""

import datetime
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.archive import (
    layout,
    names,
    opened,
    parts,
    plan,
    reproduced,
    reproduced_page,
    verify,
)
from lockstep.archive.findings import reason
from lockstep.archive.plan import ARCHIVED, CONFIG, Plan
from lockstep.archive.reproduced import YES, Outcome
from lockstep.errors import UserError
from lockstep.study import Study

SCHEMA = "lockstep-reproduction/1"
SUCCEEDED, DIFFERS, NOT_RUN = 0, 1, 2
FAILED = "could not be run to its end"


def main(
    path: Path,
    into: Path,
    *,
    profile: str,
    digest: str | None = None,
    only: Sequence[str] = (),
    raw: Sequence[str] = (),
    dry_run: bool = False,
    yes: bool = False,
) -> int:
    """Run an archived study again; returns the exit status.

    Args:
        digest: that the archive was published with; its manifest must have it.

    Raises:
        UserError: the archive or the folder cannot be used, or nobody said yes.
    """
    # One open file: what is run is what was verified, whatever happens to its name meanwhile.
    with verify.reading(path) as stream:
        archive = opened.read(path, stream)
        checks = verify.checked(archive, digest=digest)
        problems = [line for check in checks if check.wrong for line in check.lines()]
        if problems or archive.manifest is None:
            print("\n".join(problems))
            print(f"{path}: does not hold; nothing was run")
            return DIFFERS
        config = json.loads(archive.reader.bytes_of(layout.STUDY))
        found = plan.profile(profile, archive.files)
        chosen = plan.plan(
            config, folder=into, profile=found, only=only, raw=raw, archived=archive.files
        )
        print("\n".join(chosen.lines(archive.manifest)), flush=True)
        if dry_run:
            return SUCCEEDED
        _agree(yes)
        _set_up(archive, chosen)
    status = subprocess.run(chosen.command, cwd=chosen.checkout, env=_environment()).returncode
    return _conclude(chosen, path, archive.manifest["digest"], status)


def _agree(yes: bool) -> None:
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


def _set_up(archive: opened.Opened, chosen: Plan) -> None:
    """Write source, config, data and the archived records into the folder; all or nothing.

    Raises:
        UserError: there is no room, nothing can be written there, a link leads out, or two files
            would lie in one place.
    """
    _check_places(archive)
    try:
        _fill(archive, chosen)
    except OSError as error:
        where = error.filename or chosen.folder
        raise UserError(
            f"{where}: cannot be written, {reason(error)}; name another folder (--into)"
        ) from error


def _fill(archive: opened.Opened, chosen: Plan) -> None:
    new = not chosen.folder.exists()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    try:
        chosen.checkout.mkdir()
        source = opened.below(layout.SOURCE)
        opened.extract(archive, source, chosen.checkout.resolve(), strip=layout.SOURCE)
        _set_up_parts(archive, chosen)
        target = chosen.folder / ARCHIVED
        target.mkdir()
        opened.extract(
            archive, opened.below(layout.RESULTS), target.resolve(), strip=layout.RESULTS
        )
        files.write_json(chosen.checkout / CONFIG, chosen.config)
    except BaseException:
        for path in (chosen.checkout, chosen.folder / ARCHIVED):
            files.remove(path)
        if new:
            files.remove(chosen.folder)
        raise


def _set_up_parts(archive: opened.Opened, chosen: Plan) -> None:
    """Write archived data and images to where the repetition looks for them."""
    root = chosen.checkout.resolve()
    held = parts.used(archive.files)
    moved = parts.moved(archive, chosen.config, root / "workflow" / "lockstep") if held else {}
    places = {sif: parts.ready_place(name) for name, sif in parts.ready(held).items()}
    # The workflow writes what such an image is when it takes it.
    held -= {sif.replace("image.sif", "manifest.json") for sif in places}
    for name in held:
        folder, _, file = name.rpartition("/")
        if folder in moved:
            places[name] = f"{moved[folder][0]}/{file}"
    flaw = names.flaw(places.values())
    if flaw:
        raise UserError(f"{archive.path}: running it would need {flaw}; not touched")
    opened.extract(archive, held.__contains__, root, places=places)
    for folder, identity in moved.values():
        path = root / folder / "manifest.json"
        files.write_json(path, {**files.read_json(path), "identity": identity})


def _check_places(archive: opened.Opened) -> None:
    """Refuse a source that has its own files where data and config go, or links to elsewhere."""
    source = [n.removeprefix(layout.SOURCE) for n in archive.files if n.startswith(layout.SOURCE)]
    data = sorted(parts.used(archive.files))
    flaw = names.flaw([*source, *data, CONFIG])
    if flaw:
        raise UserError(f"{archive.path}: running it would need {flaw}; not touched")


def _environment() -> dict[str, str]:
    """Return the environment of the run: this Python, and no package of ours but the archive's."""
    hidden = ("PYTHONPATH", "LOCKSTEP_STUDY", "LOCKSTEP_INSIDE")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    # Else `python -m` looks for modules in the checkout first, where a json.py may lie.
    return kept | {"PYTHONSAFEPATH": "1"}


def _conclude(chosen: Plan, path: Path, digest: str, status: int) -> int:
    archived = Study.at(chosen.folder / ARCHIVED / chosen.config["study"])
    again = Study(chosen.config)
    again.root = chosen.checkout / again.root
    found = reproduced.outcomes(archived, again, chosen.runs)
    conclusion = reproduced.conclusion(found) if status == 0 else FAILED
    told = {
        "schema": SCHEMA,
        "study": again.name,
        "archive": path.name,
        "digest": digest,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "snakemake_status": status,
        "conclusion": conclusion,
        "outcomes": [asdict(outcome) for outcome in found],
    }
    files.write_json(chosen.folder / "reproduction.json", told)
    page = chosen.folder / "reproduction.html"
    files.write_bytes(page, reproduced_page.render(told).encode())
    print("\n".join(lines(told, found)))
    print(f"page: {page}")
    return {YES: SUCCEEDED, FAILED: NOT_RUN}.get(conclusion, DIFFERS)


def lines(told: Mapping[str, Any], found: Sequence[Outcome]) -> list[str]:
    """Return what a person reads at the end."""
    result = []
    if told["snakemake_status"]:
        result.append(f"the workflow ended with status {told['snakemake_status']}")
    for outcome in found:
        result.append(f"{outcome.outcome:14}  {outcome.measure}: {outcome.what}: {outcome.says}")
    differs = Counter(reason for outcome in found for reason in outcome.differs)
    result += [f"differs from the record: {reason} ({n} runs)" for reason, n in differs.items()]
    return [*result, f"study {told['study']}: {told['conclusion']}"]
