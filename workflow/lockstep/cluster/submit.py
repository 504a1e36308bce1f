"""Stands before sbatch: a job that is still queued or running is adopted, not submitted twice.

Neither Snakemake nor its SLURM plugin knows the jobs of a workflow that was killed. So the workflow
puts `workflow/slurm` first on the PATH of its own sbatch calls (`workflow/rules/common.smk`), and
every submission comes through here. It notes which job makes which target; when the same target is
submitted again while that job lives, the job gets the new workflow's name, by which the plugin asks
for its state, and its number is the answer. If config or code has changed since, the old job is
cancelled instead, and its runs go on in the new one.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.cluster import slurm
from lockstep.study import Study

FOLDER = "LOCKSTEP_JOBS"  # where the notes are, as the workflow says
STATE = "LOCKSTEP_STATE"  # hash of config and code, as the workflow says
ALIVE = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING"}
SHIM = Path(__file__).resolve().parents[2] / "slurm"
ENDING = 120.0  # seconds that a cancelled job gets to end


def environment(study: Study) -> dict[str, str]:
    """Return what the workflow's own environment needs for its submissions to come through here."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted(package.rglob("*.py")) + sorted(package.parent.glob("rules/*.smk"))
    state = [study.config, [files.sha256_file(source) for source in sources]]
    return {
        "PATH": os.pathsep.join([str(SHIM), *os.get_exec_path()]),
        FOLDER: str((study.root / "jobs").absolute()),
        STATE: files.digest(state),
    }


def main(arguments: Sequence[str]) -> int:
    """Adopt a job, or submit one; prints its number as `sbatch --parsable` does."""
    folder = Path(os.environ[FOLDER])
    note = folder / f"{_key(arguments)}.json"
    known = files.read_json(note) if note.is_file() else {}
    request = _request(arguments)
    if known and _settled(known["job"]) in ALIVE:
        same = known["state"] == os.environ[STATE] and known["request"] == request
        if same and _rename(known["job"], _option(arguments, "--job-name")):
            _say(f"job {known['job']} of an earlier start is still there and is adopted")
            print(known["job"])
            return 0
        _cancel(known["job"])
    done = subprocess.run([sbatch() or "sbatch", *arguments], capture_output=True, text=True)
    sys.stderr.write(done.stderr)
    sys.stdout.write(done.stdout)
    found = re.match(r"\d+", done.stdout)
    if done.returncode == 0 and found:
        job = {
            "job": found.group(),
            "state": os.environ[STATE],
            "request": request,
            "submitted": time.time(),
        }
        files.write_json(note, job)
    return done.returncode


def _key(arguments: Sequence[str]) -> str:
    """Return a name for what a job makes: its targets, as Snakemake tells the job."""
    wrapped = _option(arguments, "--wrap")
    found = re.search(r"--target-jobs\s+(.*?)\s+--allowed-rules", wrapped)
    return files.digest(found.group(1) if found else wrapped)[:16]


def _request(arguments: Sequence[str]) -> list[str]:
    """Return what the job is given, without what each start of a workflow names anew."""
    skipped, kept = ("--job-name", "--wrap", "--output", "--comment"), []
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


def _state(job: str) -> str:
    status, said = slurm.ask("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job)
    return said.strip() if status == 0 else ""


def _settled(job: str) -> str:
    """Return a job's state once it is not about to change: one that ends is no longer alive."""
    deadline = time.monotonic() + ENDING
    while (state := _state(job)) == "COMPLETING" and time.monotonic() < deadline:
        time.sleep(1)
    return state


def _rename(job: str, name: str) -> bool:
    return slurm.ask("scontrol", "update", f"JobId={job}", f"JobName={name}")[0] == 0


def _cancel(job: str) -> None:
    _say(f"job {job} of an earlier start has another config or code and is cancelled")
    slurm.ask("scancel", job)
    deadline = time.monotonic() + ENDING
    while _settled(job) in ALIVE and time.monotonic() < deadline:
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


def notes(folder: Path) -> list[dict[str, Any]]:
    """Return what is noted of a study's jobs, oldest first."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted(found, key=lambda note: note["submitted"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
