"""What SLURM says, asked by its own commands. Standard library only."""

import grp
import itertools
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from lockstep.cluster import notices

TIMEOUT = 60.0  # seconds; a busy controller answers late, a dead one never
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0  # seconds between two questions that are not answered

PASSES = re.compile(
    r"timed? ?out|temporarily|unable to contact|connection|communication|standby|try again|munge"
    r"|zero bytes|authentication|rate limit|too many|maximum number of jobs|QOS policy|I/O error"
    r"|inactive or drain",
    re.IGNORECASE,
)
"""What SLURM's commands say of troubles that pass."""

SHIM = Path(__file__).resolve().parents[2] / "slurm"
"""Where the workflow's own programs of these names are (`lockstep.cluster.client`)."""

UNKNOWN = (0, 2**32 - 2, 2**64 - 2)
"""What SLURM writes for energy that it has not counted."""

KEPT = {  # of what SLURM says of a job: our name
    "JobId": "id",
    "Partition": "partition",
    "Account": "account",
    "QOS": "qos",
    "NodeList": "nodes",
    "NumNodes": "node_count",
    "AllocTRES": "allocated",
    "Restarts": "restarts",
    "SubmitTime": "submitted",
    "StartTime": "started",
    "EndTime": "ends",
}


def program(name: str) -> str | None:
    """Return SLURM's own program: the first on PATH that is not ours; None if there is none."""
    for folder in os.get_exec_path():
        path = Path(folder) / name
        if Path(folder).resolve() != SHIM and os.access(path, os.X_OK):
            return str(path)
    return None


def ask(*command: str, timeout: float = TIMEOUT, warnings: bool = False) -> tuple[int, str]:
    """Run a SLURM command; returns its exit status and what it said.

    Args:
        timeout: seconds after which it counts as unanswered (status 124).
        warnings: return what it wrote to standard error also where it succeeded.
    """
    real = program(command[0])
    if real is None:
        return 127, f"{command[0]} is not installed, or not on PATH"
    try:
        done = subprocess.run(
            [real, *command[1:]],
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} has not answered within {timeout:.0f} s"
    said = done.stdout + (done.stderr if done.returncode or warnings else "")
    return done.returncode, said.strip()


def pauses() -> Iterator[float]:
    """Yield seconds to wait before each further question, growing up to a longest pause."""
    growing = (FIRST_PAUSE * 2**k for k in itertools.count())
    return itertools.chain(
        itertools.takewhile(lambda pause: pause < LONGEST_PAUSE, growing),
        itertools.repeat(LONGEST_PAUSE),
    )


def passes(status: int, said: str) -> bool:
    """Whether what SLURM's command failed of passes by itself, and nobody needs to change anything.

    Limits of jobs in the queue do, other limits of an account or a quality of service do not.
    """
    limits = re.findall(r"\b(?:QOS|Assoc)[A-Z]\w+", said)
    if limits:
        return any("Submit" in limit for limit in limits)
    return status == 124 or PASSES.search(said) is not None


def order(*command: str) -> tuple[int, str]:
    """Run a command that changes something, again and again until SLURM has taken or refused it."""
    return insist(*command, answered=lambda status, said: not (status and passes(status, said)))


def is_answer(status: int, said: str) -> bool:
    """Whether SLURM has answered a question, if only that it knows no such job."""
    return status in (0, 127) or "Invalid job id" in said


def insist(
    *command: str,
    patience: float | None = None,
    answered: Callable[[int, str], bool] = is_answer,
) -> tuple[int, str]:
    """Ask again, with growing pauses, until SLURM answers; its silence is announced.

    Args:
        patience: seconds after which the last failure is returned; None to ask for good.
        answered: whether a status and what was said are an answer.
    """
    deadline = None if patience is None else time.monotonic() + patience
    for pause in pauses():
        left = TIMEOUT if deadline is None else min(TIMEOUT, deadline - time.monotonic())
        status, said = ask(*command, timeout=max(1.0, left))
        if answered(status, said):
            notices.heard()
            return status, said
        notices.silent(said.splitlines()[-1] if said else f"{command[0]}: status {status}")
        if deadline is not None and time.monotonic() + pause > deadline:
            return status, said
        time.sleep(pause)
    raise AssertionError


def group(number: int) -> str:
    """Return a group's name, or its number where it has none here."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def fields(line: str) -> dict[str, str]:
    """Return the fields of a line of `scontrol --oneliner`: words such as ``Key=Value``."""
    return dict(re.findall(r"(?:^|\s)([A-Za-z_:/]+)=(\S*)", line))


def this_job() -> dict[str, Any]:
    """Return what SLURM knows of the job around this process; empty outside of one."""
    number = os.environ.get("SLURM_JOB_ID")
    if number is None:
        return {}
    status, said = ask("scontrol", "show", "job", "--oneliner", number)
    known = fields(said) if status == 0 else {}
    known = {key: value for key, value in known.items() if value not in ("(null)", "N/A")}
    job: dict[str, Any] = {"id": number}
    job |= {ours: known[theirs] for theirs, ours in KEPT.items() if theirs in known}
    job |= {name: int(job[name]) for name in ("restarts", "node_count") if name in job}
    submitted, started = seconds(job.get("submitted")), seconds(job.get("started"))
    if submitted is not None and started is not None:
        job["queue_seconds"] = started - submitted
    return job


def energy(job: str) -> dict[str, Any]:
    """Return what a job that still runs has consumed, if its cluster measures that.

    SLURM counts by node and step. Of steps that have ended it tells with accounting alone, the
    script's own step it tells without: that one sees the first node from the job's start.

    Returns:
        `joules` and the `steps` that they are of, or why they are `absent`.
    """
    ended = _joules("sacct", job)
    counted = {step: value for step, value in ended.items() if step.rpartition(".")[2].isdigit()}
    counted = counted or _joules("sstat", f"{job}.batch")
    if not counted:
        return {"absent": "SLURM has counted none (AcctGatherEnergyType, and sacct or sstat)"}
    return {"joules": sum(counted.values()), "steps": sorted(counted)}


def _joules(program: str, job: str) -> dict[str, int]:
    """Return what each step has consumed, as far as SLURM knows."""
    columns = ("--noheader", "--parsable2", "--format=JobID,ConsumedEnergyRaw")
    status, said = ask(program, *columns, "--jobs", job)
    rows = [line.partition("|") for line in said.splitlines()] if status == 0 else []
    known = {step: int(value) for step, _, value in rows if value.isdigit()}
    return {step: value for step, value in known.items() if value not in UNKNOWN}


def ended_as(job: str) -> str | None:
    """Return how a job has ended, in SLURM's words; None if SLURM does not know it any more."""
    status, said = ask("scontrol", "show", "job", "--oneliner", job)
    known = fields(said) if status == 0 else {}
    if "JobState" not in known:
        return None
    return f"{known['JobState']} ({known.get('Reason')}, exit {known.get('ExitCode')})"


def end_of_this_job(margin: float) -> float | None:
    """Return the time (of `time.time`) at which runs should stop, to save before the job's limit.

    Args:
        margin: seconds before the limit; at most a fifth of what is left.
    """
    ends = os.environ.get("SLURM_JOB_END_TIME")
    limit = float(ends) if ends else seconds(this_job().get("ends"))
    if limit is None:
        return None
    return limit - min(margin, max(0.0, limit - time.time()) / 5)


def seconds(stamp: str | None) -> float | None:
    """Return the time (of `time.time`) of a time as SLURM writes it; None where there is none."""
    try:
        return datetime.fromisoformat(stamp or "").timestamp()
    except ValueError:  # Unknown, N/A, None
        return None
