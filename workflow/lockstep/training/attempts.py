"""How the attempts to train a run have ended: a list beside its checkpoints, then in its summary.

What kills a run at once (SIGKILL, the memory's end, a node's) leaves it no time to say so. So each
attempt is noted when it begins, and the next one asks what became of it.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockstep import files, jobs
from lockstep.cluster import notices, slurm
from lockstep.interruption import INTERRUPTED, OUT_OF_MEMORY
from lockstep.jobs import REFUSED
from lockstep.training.spec import RunSpec

SILENT = "it ended without a word: a kill, or a failure of the machine"
STOPPED = "interrupted"
AGAIN = "SLURM took its nodes away and started the job again"


def begin(spec: RunSpec) -> RunSpec:
    """Note a new attempt; returns the specification with all that were made, this one last."""
    job = spec.host.get("job") or {}
    made = added(_path(spec), job)
    return dataclasses.replace(spec, host={**spec.host, "job": {**job, "attempts": made}})


def added(path: Path, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add an attempt to the list in a file, and return it.

    Args:
        job: what SLURM says of the job around this process; empty outside of one.
    """
    made = _read(path)
    if made and _taken_away(made[-1], job):
        made[-1]["reason"] = AGAIN
    elif made and made[-1]["reason"] is None:
        made[-1]["reason"] = _found_out(made[-1]["job"], job.get("id"))
    about = {"job": job.get("id"), "restarts": job.get("restarts")}
    made.append({**about, "started": jobs.now(), "reason": None})
    files.write_json(path, made)
    return made


def end(spec: RunSpec, reason: str) -> None:
    """Note why the newest attempt ended before its run had."""
    made = _read(_path(spec))
    if made:
        made[-1]["reason"] = reason
        files.write_json(_path(spec), made)


def why(status: int, first: str | None = None) -> str:
    """Return what an exit status other than 0 means.

    Args:
        first: what the process that failed first said of it.
    """
    known = {REFUSED: "refused its input", INTERRUPTED: STOPPED, OUT_OF_MEMORY: "out of memory"}
    if status in known:
        return known[status]
    return first or (f"signal {status - 128}" if status > 128 else f"exit status {status}")


def announce(spec: RunSpec, status: int, reason: str = "") -> None:
    """Say that a run has ended before its end, in words by which `lockstep.outcome` knows it."""
    if status == REFUSED:  # it has said so
        return
    text = f"{spec.name} has failed: {reason}"
    if status == INTERRUPTED:
        saved = Path(spec.checkpoints).glob("step-*")  # without NumPy, which the launcher has not
        step = max((int(path.name.removeprefix("step-")) for path in saved), default=0)
        text = f"{spec.name} stopped at step {step}; the next job, or the same command, goes on"
    print(f"lockstep: {text}", file=sys.stderr, flush=True)
    notices.say(text)


def _path(spec: RunSpec) -> Path:
    """It is removed with the checkpoints, when the run has its records."""
    return Path(spec.checkpoints).with_name(f"attempts-{spec.identity[:16]}.json")


def _read(path: Path) -> list[dict[str, Any]]:
    return files.read_json(path) if path.is_file() else []


def _taken_away(last: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    """Whether SLURM has started the job of the last attempt again.

    Its processes may have noticed first, and may have said what they noticed: a signal, or a peer
    that was gone. What was stopped at a checkpoint was asked to.
    """
    before, now = last.get("restarts"), job.get("restarts")
    if last["job"] != job.get("id") or before is None or now is None:
        return False
    return bool(before < now and last["reason"] != STOPPED)


def _found_out(job: str | None, now: str | None) -> str:
    """Return why an attempt has ended that could not say it.

    Args:
        job, now: the jobs around it and around this process; None outside of one.
    """
    if job is None:
        return SILENT
    if job == now:
        return AGAIN
    ended = slurm.ended_as(job)
    return f"job {job} ended as {ended}" if ended else f"{SILENT} (SLURM has forgotten job {job})"
