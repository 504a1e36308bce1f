"""What helpers of a workflow have to tell, on whatever host: a log, which the workflow shows.

Snakemake's plugin shows nothing of what SLURM's commands say, and a job's output is in the job's
own log. So both append to `results/STUDY/logs/submissions.log`, and the workflow prints what is new
there (`lockstep.cluster.watch`).
"""

import os
import time
from pathlib import Path

FOLDER = "LOCKSTEP_JOBS"  # variable that names the folder with the notes on a workflow's jobs
SILENT = "silent"  # file beside the notes, since SLURM does not answer
AGAIN = 600.0  # seconds after which a silence is announced once more


def say(text: str) -> None:
    """Add a line to the log; does nothing outside of a workflow that submits jobs."""
    if FOLDER not in os.environ:
        return
    path = log(Path(os.environ[FOLDER]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as stream:
        stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def log(notes: Path) -> Path:
    """Return the log that belongs to a folder of notes."""
    return notes.parent / "logs" / "submissions.log"


def silent(why: str) -> None:
    """Announce that SLURM does not answer: once for all who ask, and again after some minutes."""
    mark = _mark()
    if mark is None:
        return
    try:
        since, announced = float(mark.read_text()), mark.stat().st_mtime
        if time.time() - announced < AGAIN:
            return
        mark.touch()
        say(f"SLURM has not answered for {time.time() - since:.0f} s ({why}); waiting")
    except (FileNotFoundError, ValueError):
        mark.write_text(repr(time.time()))
        say(f"SLURM does not answer ({why}); waiting until it does")


def heard() -> None:
    """Announce that SLURM answers again, if it did not."""
    mark = _mark()
    if mark is None or not mark.exists():
        return
    try:
        since = float(mark.read_text())
        mark.unlink()
    except (FileNotFoundError, ValueError):  # another one was faster
        return
    say(f"SLURM answers again, after {time.time() - since:.0f} s")


def _mark() -> Path | None:
    folder = os.environ.get(FOLDER)
    return Path(folder) / SILENT if folder and Path(folder).is_dir() else None
