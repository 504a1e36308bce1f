"""Stands before sbatch: a job that is still queued or running is adopted, not submitted twice.

Neither Snakemake nor its SLURM plugin knows the jobs of a workflow that was killed. So the workflow
puts `workflow/slurm` first on the PATH of its own sbatch calls (`workflow/rules/common.smk`), and
every submission comes through here. It notes by what name a target's job is about to be submitted,
and then its number; when the same target is submitted again while that job lives, the job gets the
new workflow's name, by which the plugin asks for its state, and its number is the answer. If what
decides about it has changed since, the old job is cancelled instead, and its runs go on in the new
one.

A controller that answers too late may have taken a job all the same, and sbatch calls that a
failure. So after a failure the queue is searched for the job before anybody submits a second one.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.cluster import slurm, targets
from lockstep.errors import UserError
from lockstep.study import Study

FOLDER = "LOCKSTEP_JOBS"  # where the notes are, as the workflow says
STATE = "LOCKSTEP_STATE"  # hash of config and code, as the workflow says
STATES = "states"  # file beside the notes: the state of each target that has one of its own
ENDED = {  # all else that SLURM says, now and in later versions, is of a job that lives
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
    "COMPLETING",  # for longer than ENDING: what is left of it hangs, and trains no more
}
SHIM = Path(__file__).resolve().parents[2] / "slurm"
ENDING = 120.0  # seconds that a cancelled job gets to end
PATIENCE = 180.0  # seconds in which the controller must say once whether a job lives
PAUSE = 5.0  # seconds between two questions that are not answered


def folder(study: Study) -> Path:
    """Return where a study's notes on its jobs are, from its first submission on."""
    return (study.root / "jobs").absolute()


def environment(study: Study) -> dict[str, str]:
    """Return what the workflow's own environment needs for its submissions to come through here."""
    return {
        "PATH": os.pathsep.join([str(SHIM), *os.get_exec_path()]),
        FOLDER: str(folder(study)),
        STATE: targets.all_states(study),
    }


def begin(study: Study) -> None:
    """Write down what decides about each target, and cancel jobs of those that are no more.

    In the environment that `environment` makes.
    """
    notes, known = folder(study), targets.own_states(study)
    files.write_json(notes / STATES, known)
    for path in sorted(notes.glob("*.json")):
        note = files.read_json(path)
        target = note.get("target", "")
        if not target.startswith(("train:", "trace:")) or target in known:
            continue
        job = _job_of(note)
        if job and _lives(job):
            _say(f"job {job} makes {target}, which is not of the study any more: cancelled")
            slurm.ask("scancel", job)
        path.unlink()


def main(arguments: Sequence[str]) -> int:
    """Adopt a job, or submit one; prints its number as `sbatch --parsable` does.

    Raises:
        UserError: the controller does not say whether the job of an earlier start lives.
    """
    notes, target = Path(os.environ[FOLDER]), _target(arguments)
    note = notes / f"{files.digest(target)[:16]}.json"
    known = files.read_json(note) if note.is_file() else {}
    state, request = _state_of(notes, target), _request(arguments)
    job = _job_of(known)
    if job and _lives(job):
        same = known["state"] == state and known["request"] == request
        if same and _rename(job, _option(arguments, "--job-name")):
            files.write_json(note, known | {"job": job})
            _say(f"job {job} of an earlier start is still there and is adopted")
            print(job)
            return 0
        _cancel(job)
    names = {name: _option(arguments, f"--{name}") for name in ("job-name", "comment")}
    now = time.time()
    about = {**names, "target": target, "state": state, "request": request, "submitted": now}
    files.write_json(note, about | {"job": None})  # whoever is killed now leaves its name
    done = subprocess.run([sbatch() or "sbatch", *arguments], capture_output=True, text=True)
    found = re.match(r"\d+", done.stdout)
    job = found.group() if found and done.returncode == 0 else None
    if job is None and done.returncode:
        try:
            job = _job_of(about)
        except UserError:  # the next submission looks for it again
            sys.stderr.write(done.stderr)
            return done.returncode
        if job is None:
            sys.stderr.write(done.stderr)
            note.unlink()
            return done.returncode
        # Not to the plugin, which would take what sbatch said for a failure.
        _say(f"job {job} was accepted although sbatch failed ({done.stderr.strip()})")
        print(job)
    else:
        sys.stderr.write(done.stderr)
        sys.stdout.write(done.stdout)
    if job is not None:
        files.write_json(note, about | {"job": job})
    return 0


def _target(arguments: Sequence[str]) -> str:
    """Return what a job makes, as Snakemake tells the job: ``RULE:WILDCARD=VALUE,…``."""
    wrapped = _option(arguments, "--wrap")
    found = re.search(r"--target-jobs\s+(.*?)\s+--allowed-rules", wrapped)
    return found.group(1).strip("'\"") if found else wrapped


def _state_of(notes: Path, target: str) -> str:
    """Return the hash of what decides about a target."""
    path = notes / STATES
    known = files.read_json(path) if path.is_file() else {}
    return str(known.get(target, os.environ[STATE]))


def _job_of(note: Mapping[str, Any]) -> str | None:
    """Return the job of a note; what was submitted and not noted is found by name and comment.

    Raises:
        UserError: SLURM does not say.
    """
    if note.get("job"):
        return str(note["job"])
    name, comment = note.get("job-name"), note.get("comment")
    if not name or not comment:  # no other submission has both
        return None
    asked = ("squeue", "--me", "--noheader", f"--name={name}", "--format=%i %T %k")
    status, said = _answer(asked, f"a job named {name}")
    rows = [line.split(None, 2) for line in said.splitlines()] if status == 0 else []
    jobs = [row[0] for row in rows if len(row) == 3 and row[2] == comment and row[1] not in ENDED]
    return jobs[-1] if jobs else None


def _request(arguments: Sequence[str]) -> list[str]:
    """Return what the job is given, without what each start of a workflow names anew.

    The plugin excludes nodes that have failed, and forgets them with its workflow.
    """
    skipped, kept = ("--job-name", "--wrap", "--output", "--comment", "--exclude"), []
    rest = iter(arguments)
    for argument in rest:
        name = argument.partition("=")[0]
        if name in skipped:
            if "=" not in argument:
                next(rest, None)
            continue
        kept.append(argument)
    return kept


def _option(arguments: Sequence[str], name: str) -> str:
    for index, argument in enumerate(arguments):
        if argument == name:
            return arguments[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return ""


def _state(job: str) -> str | None:
    """Return a job's state, None if SLURM knows no such job (any more).

    Raises:
        UserError: SLURM does not say. A twin of a job that lives would be the worst answer.
    """
    asked = ("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job)
    status, said = _answer(asked, f"job {job}")
    state = re.search(r"^[A-Z_]+$", said, re.MULTILINE) if status == 0 else None
    return state.group() if state else None


def _answer(asked: Sequence[str], what: str) -> tuple[int, str]:
    """Ask until SLURM answers, if only that it knows no such job."""
    deadline = time.monotonic() + PATIENCE
    while True:
        status, said = slurm.ask(*asked)
        if status == 0 or "Invalid job id" in said:
            return status, said
        if time.monotonic() > deadline:
            why = said.splitlines()[-1] if said else f"status {status}"
            raise UserError(
                f"squeue does not say whether {what} of an earlier start still lives ({why}); "
                "nothing is submitted beside it: start again when SLURM answers"
            )
        time.sleep(PAUSE)


def _lives(job: str) -> bool:
    """Whether a job is queued or runs; one that is about to end gets the time for it."""
    deadline = time.monotonic() + ENDING
    while (state := _state(job)) == "COMPLETING" and time.monotonic() < deadline:
        time.sleep(1)
    return state is not None and state not in ENDED


def _rename(job: str, name: str) -> bool:
    return slurm.ask("scontrol", "update", f"JobId={job}", f"JobName={name}")[0] == 0


def _cancel(job: str) -> None:
    _say(f"job {job} of an earlier start has another config, code or request and is cancelled")
    slurm.ask("scancel", job)
    deadline = time.monotonic() + ENDING
    while _lives(job) and time.monotonic() < deadline:
        time.sleep(1)


def sbatch() -> str | None:
    """Return the real sbatch: the first on PATH that is not this one; None if there is none."""
    for folder in os.get_exec_path():
        path = Path(folder) / "sbatch"
        if Path(folder).resolve() != SHIM and os.access(path, os.X_OK):
            return str(path)
    return None


def _say(text: str) -> None:
    """Note it where a person looks: the plugin shows nothing of what sbatch says."""
    log = Path(os.environ[FOLDER]).parent / "logs" / "submissions.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as stream:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=stream)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        _say(str(error))
        print(f"lockstep: error: {error}", file=sys.stderr)
        sys.exit(2)
