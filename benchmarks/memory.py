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

VARIANTS = ("torch-eager", "jax-jit")
WORKER = b"lockstep.training.worker"
SMALL, LARGE = 1_437, 50_295  # training examples
EARLY = 5  # epochs after the first one
GROWTH = ("<=", 1.02)
ADDED = ("<=", 1.5)


def measure(quick: bool) -> list[Row]:
    """Return peaks, growth, and what a larger dataset adds."""
    counts = (1, 9) if quick else (1, 9, 81)
    rows = []
    for variant in VARIANTS[-1:] if quick else VARIANTS:
        peaks: dict[int, int] = {}
        during: dict[int, list[int]] = {}
        for epochs in counts:
            peaks[epochs], during = watch(variant, SMALL, epochs)
        last = max(counts)
        early = [m for done, memory in during.items() if 1 <= done <= EARLY for m in memory]
        late = [m for done, memory in during.items() if done >= last - EARLY for m in memory]
        grown = f"{variant}: while running, last epochs : first epochs"
        rows += [
            ratio(f"{variant}: peak, {last} epochs : 1", [peaks[last]], [peaks[1]], GROWTH),
            ratio(grown, [float(np.median(late))], [float(np.median(early))], GROWTH),
        ]
        if not quick:
            large, _ = watch(variant, LARGE, 1)
            added = (LARGE - SMALL) * (28 * 28 + 4)
            what = f"{variant}: {added / 1e6:.0f} MB of data add : their size"
            rows.append(ratio(what, [large - peaks[1]], [added], ADDED))
        rows += [times(f"{variant}: peak, epochs: {n}", "MB", [p / 1e6]) for n, p in peaks.items()]
    return rows


def watch(variant: str, examples: int, epochs: int) -> tuple[int, dict[int, list[int]]]:
    """Train; returns the peak of the record, and that seen after so many epochs, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        study = studies.make(Path(folder), examples=examples, workloads={"epochs": epochs})
        block = studies.block(variant)
        run = study.root / "runs" / block
        command = studies.command("train", "--study", study.path, "--block", block)
        watched: dict[int, list[int]] = {}
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                memory = _resident(process.pid)
                if memory:
                    watched.setdefault(_epochs(run / "log.txt"), []).append(memory)
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
