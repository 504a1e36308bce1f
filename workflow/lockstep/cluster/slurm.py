"""What SLURM says, asked by its own commands. Standard library only."""

import os
import re
import subprocess
import time
from datetime import datetime
from typing import Any

TIMEOUT = 60.0  # seconds; a busy controller answers late, a dead one never

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


def ask(*command: str) -> tuple[int, str]:
    """Run a SLURM command; returns its exit status and all that it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed, or not on PATH"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} has not answered within {TIMEOUT:.0f} s"
    return done.returncode, (done.stdout + done.stderr).strip()


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
