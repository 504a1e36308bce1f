"""Resident memory of a run: the dataset once plus a constant, not growing with epochs.

Real runs of different length, with the peak from their records; the longest is watched while it
runs, because a peak while compiling would hide a slow leak. A run on a dataset of 40 MB tells what
the dataset adds: its pages are mapped, so they are the page cache's and shared by all processes.
"""

import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import studies
from benchmarks.row import Row, ratio, times
from lockstep import files
from lockstep.study import Study

VARIANTS = ("torch-eager", "jax-jit")
WORKER = b"lockstep.training.worker"
SMALL, LARGE = 1_437, 50_295  # training examples
SETTLED = 3  # epochs after which nothing should grow any more
GROWTH = ("<=", 1.02)
ADDED = ("<=", 1.5)


def measure(quick: bool) -> list[Row]:
    """Return peaks, growth, and what a larger dataset adds."""
    epochs = (1, 4) if quick else (1, 9, 81)
    rows = []
    for variant in VARIANTS:
        peaks = {}
        for count in epochs:
            peaks[count], watched = _run(variant, SMALL, count)
        settled = [memory for done, memory in watched if done == SETTLED]
        last = [memory for done, memory in watched if done == epochs[-1] - 1]
        first, longest = peaks[1], peaks[epochs[-1]]
        rows += [
            ratio(f"{variant}: peak, {epochs[-1]} epochs : 1 epoch", [longest], [first], GROWTH),
            _growth(f"{variant}: during the last epoch : during epoch {SETTLED + 1}", last, settled),
        ]
        rows += [times(f"{variant}: peak, epochs: {n}", "MB", [p / 1e6]) for n, p in peaks.items()]
        if not quick:
            large, _ = _run(variant, LARGE, 1)
            data = (LARGE - SMALL) * (28 * 28 + 4)
            what = f"{variant}: peak that {data / 1e6:.0f} MB more of data add : their size"
            rows.append(ratio(what, [large - first], [data], ADDED))
    return rows


def _growth(what: str, last: list[int], settled: list[int]) -> Row:
    return ratio(what, [float(np.median(last))], [float(np.median(settled))], GROWTH)


def _run(variant: str, examples: int, epochs: int) -> tuple[int, list[tuple[int, int]]]:
    """Train; returns the peak of the record, and the memory by finished epochs, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        study = studies.make(Path(folder), examples=examples, workloads={"epochs": epochs})
        block = studies.block(variant)
        run = study.root / "runs" / block
        command = studies.command("train", "--study", study.path, "--block", block)
        watched = []
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                memory = _resident(process.pid)
                if memory:
                    watched.append((_epochs(run / "log.txt"), memory))
                time.sleep(0.02)
        if process.returncode:
            raise RuntimeError(f"{variant} ended with {process.returncode}")
        return files.read_json(run / "summary.json")["memory"]["max_rss_bytes"], watched


def _epochs(log: Path) -> int:
    """Return how many epochs a run's log tells of."""
    return log.read_text().count(": epoch ") if log.exists() else 0


def _resident(launcher: int) -> int:
    """Return the resident memory of a launcher's worker in bytes; 0 where there is none yet."""
    try:
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        for child in children:
            if WORKER in Path(f"/proc/{child}/cmdline").read_bytes():
                fields = Path(f"/proc/{child}/statm").read_text().split()
                return int(fields[1]) * 4096
    except (OSError, IndexError):
        return 0
    return 0
