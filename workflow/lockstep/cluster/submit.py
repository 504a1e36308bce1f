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
What passes (a controller that is away, a limit of jobs in the queue) is waited out here: the plugin
would take it for a failure of the job.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.cluster import notices, slurm, targets
from lockstep.cluster.notices import FOLDER
from lockstep.errors import UserError
from lockstep.study import Study

STATE = "LOCKSTEP_STATE"  # hash of config and code, as the workflow says
STATES = "states"  # file beside the notes: the state of each target that has one of its own
ENDED = {  # all else that SLURM says, now and in later versions, is of a job that lives
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
    "COMPLETING",  # for longer than ENDING: what is left of it hangs, and trains no more
}
ENDING = 120.0  # seconds that a cancelled job gets to end


def folder(study: Study) -> Path:
    """Return where a study's notes on its jobs are, from its first submission on."""
    return (study.root / "jobs").absolute()


def environment(study: Study) -> dict[str, str]:
    """Return what the workflow's own environment needs for its submissions to come through here."""
    return {
        "PATH": os.pathsep.join([str(slurm.SHIM), *os.get_exec_path()]),
        FOLDER: str(folder(study)),
        STATE: targets.all_states(study),
    }


def noted(notes: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the notes on jobs, with their files; others may be removing some."""
    for path in sorted(notes.glob("*.json")):
        try:
            yield path, files.read_json(path)
        except UserError:
            continue


def begin(study: Study) -> None:
    """Write down what decides about each target, and cancel jobs of those that are no more.

    In the environment that `environment` makes.

    Raises:
        UserError: another person's job makes something of this study.
    """
    notes, known = folder(study), targets.own_states(study)
    files.write_json(notes / STATES, known)
    _refuse_others(notes)
    for path, note in noted(notes):
        target = note.get("target", "")
        if not target.startswith(("train:", "trace:")) or target in known:
            continue
        job = _job_of(note)
        if job and _lives(job):
            notices.say(f"job {job} makes {target}, which is not of the study any more: cancelled")
            slurm.order("scancel", job)
        path.unlink()


def _refuse_others(notes: Path) -> None:
    """Refuse a study whose jobs are another person's: they can be neither adopted nor cancelled."""
    ours = {str(note["job"]): note for _, note in noted(notes) if note.get("job")}
    names = sorted({note["job-name"] for note in ours.values() if note.get("job-name")})
    if not names:
        return
    asked = ("squeue", "--noheader", f"--name={','.join(names)}", "--format=%i %U %u", "--all")
    _, said = slurm.insist(*asked)
    for job, number, owner in (row for row in map(str.split, said.splitlines()) if len(row) == 3):
        if job in ours and number != str(os.getuid()):
            raise UserError(_owned(job, ours[job]["target"], owner))


def _owned(job: str, target: str, owner: str) -> str:
    return (
        f"job {job} of {owner} makes {target} of this study, and can be neither adopted nor "
        f"cancelled from here; wait for it, have {owner} cancel it, or give the study another name"
    )


def main(arguments: Sequence[str]) -> int:
    """Adopt a job, or submit one; prints its number as `sbatch --parsable` does.

    Raises:
        UserError: the job of an earlier start lives and is another person's.
    """
    script = sys.stdin.read() if "/dev/stdin" in arguments else None
    notes, target = Path(os.environ[FOLDER]), _target(option(arguments, "--wrap") or script or "")
    if target is None:  # nothing to adopt it by
        job, said = _submit(arguments, script, {})
        return _answer(job, said)
    note = notes / f"{files.digest(target)[:16]}.json"
    known = files.read_json(note) if note.is_file() else {}
    state, request = _state_of(notes, target), _request(arguments)
    names = {name: option(arguments, f"--{name}") for name in ("job-name", "comment")}
    job = _job_of(known)
    if job and _lives(job):
        same = known["state"] == state and known["request"] == request
        if same and _rename(job, names["job-name"]):
            files.write_json(note, known | names | {"job": job})
            notices.say(f"job {job} ({target}) of an earlier start is still there and is adopted")
            print(job)
            return 0
        _cancel(job, target)
    about: dict[str, Any] = {**names, "target": target, "state": state, "request": request}
    about["submitted"] = time.time()
    files.write_json(note, about | {"job": None})  # whoever is killed now leaves its name
    job, said = _submit(arguments, script, about)
    if job is None:
        note.unlink()
    else:
        files.write_json(note, about | {"job": job})
    return _answer(job, said)


def _answer(job: str | None, said: str) -> int:
    """Tell the plugin, which takes certain words on standard error for a failure, only of one."""
    if job is None:
        print(said or "sbatch says nothing", file=sys.stderr)
        return 1
    if said:
        notices.say(f"job {job}: {' '.join(said.split())}")
    print(job)
    return 0


def _submit(
    arguments: Sequence[str], script: str | None, about: Mapping[str, Any]
) -> tuple[str | None, str]:
    """Submit a job until SLURM takes it, or refuses it for good.

    Returns:
        Its number, or None; and what sbatch wrote besides.
    """
    waited = 0.0
    for pause in slurm.pauses():
        done = subprocess.run(
            [slurm.program("sbatch") or "sbatch", *arguments],
            input=script or "",
            capture_output=True,
            text=True,
        )
        found = re.match(r"\d+", done.stdout)
        if found and done.returncode == 0:
            return found.group(), done.stderr.strip()
        job = _job_of(about)
        if job is not None:
            return job, f"accepted although sbatch failed: {done.stderr.strip()}"
        why = "; ".join(re.sub(r"^(sbatch: )?(error: )?", "", x) for x in done.stderr.splitlines())
        if not slurm.passes(done.returncode, why):
            return None, done.stderr.strip()
        if not waited or waited // notices.AGAIN != (waited + pause) // notices.AGAIN:
            target = about.get("target", "a job")
            notices.say(f"{target} cannot be submitted now ({why}); it is tried again until it can")
        waited += pause
        time.sleep(pause)
    raise AssertionError


def _target(command: str) -> str | None:
    """Return what a job makes, as Snakemake tells the job: ``RULE:WILDCARD=VALUE,…``."""
    found = re.search(r"--target-jobs\s+(.*?)\s+--allowed-rules", command, re.DOTALL)
    return found.group(1).strip("'\"") if found else None


def _state_of(notes: Path, target: str) -> str:
    """Return the hash of what decides about a target."""
    path = notes / STATES
    known = files.read_json(path) if path.is_file() else {}
    return str(known.get(target, os.environ[STATE]))


def _job_of(note: Mapping[str, Any]) -> str | None:
    """Return the job of a note; what was submitted and not noted is found by name and comment."""
    if note.get("job"):
        return str(note["job"])
    name, comment = note.get("job-name"), note.get("comment")
    if not name or not comment:  # no other submission has both
        return None
    asked = ("squeue", "--me", "--noheader", f"--name={name}", "--format=%i %T %k", "--all")
    status, said = slurm.insist(*asked)
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


def option(arguments: Sequence[str], name: str) -> str:
    """Return the value of an option on a command line; empty if it is not there."""
    for index, argument in enumerate(arguments):
        if argument == name:
            return arguments[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return ""


def _state(job: str) -> tuple[str, str] | None:
    """Return a job's state and its owner, None if SLURM knows no such job (any more).

    It is asked until it says: a twin of a job that lives would be the worst answer.
    """
    asked = ("squeue", "--noheader", "--states=all", "--format=%T %u", "--jobs", job, "--all")
    status, said = slurm.insist(*asked)
    found = re.search(r"^([A-Z_]+) (\S+)$", said, re.MULTILINE) if status == 0 else None
    return (found.group(1), found.group(2)) if found else None


def _lives(job: str) -> str | None:
    """Return the owner of a job that is queued or runs; one that is about to end gets the time."""
    deadline = time.monotonic() + ENDING
    while (found := _state(job)) and found[0] == "COMPLETING" and time.monotonic() < deadline:
        time.sleep(1)
    return found[1] if found and found[0] not in ENDED else None


def _rename(job: str, name: str) -> bool:
    return slurm.order("scontrol", "update", f"JobId={job}", f"JobName={name}")[0] == 0


def _cancel(job: str, target: str) -> None:
    """Cancel a job and wait for its end.

    Raises:
        UserError: it lives on, as another person's does.
    """
    notices.say(
        f"job {job} ({target}) of an earlier start has another config, code or request and is "
        "cancelled"
    )
    refused, _ = slurm.order("scancel", job)
    deadline = time.monotonic() + ENDING
    while owner := _lives(job):
        if refused or time.monotonic() > deadline:
            raise UserError(_owned(job, target, owner))
        time.sleep(1)
