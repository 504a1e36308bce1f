"""`make drill-busy`: a small study beside other work. Is it noticed, and is the verdict ever wrong?

    python -m benchmarks.busy [--loads 0,0.25,0.5,1,2,4,16] [--seeds 3] [--epochs 8]

A load of 2 are two processes that only compute, one of 0.25 is one that computes a quarter of each
tenth of a second. Beside each the same study is trained: three variants of `mnist_cnn` on the
digits, paired by seed. A line of the table says how much of it was disturbed, which runs were
refused, and for each pair of variants the ratio of step times as all windows give it, and as those
give it that count. The sign of a significant one is compared with that of the first load, which
should be 0 on a machine where nothing else runs. Ends with 1 if a verdict had the wrong sign.
"""

import argparse
import csv
import itertools
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import studies
from lockstep import files
from lockstep.report import statistics
from lockstep.study import Study
from lockstep.training import contention

LOADS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0)
PERIOD = 0.1  # seconds, of which a process computes its share
VARIANTS: dict[str, dict[str, Any]] = {
    "torch": {"framework": "torch", "mode": "eager"},
    "jax": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
    "jax-xla": {"framework": "jax", "mode": "jit", "convolution": "native"},
}
PAIRS = tuple(itertools.combinations(VARIANTS, 2))


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run's step times.

    Attributes:
        steady, disturbed: how many windows.
        all_windows: median step time of the steady windows, in seconds.
        counted: the same of those that were not disturbed; None if the run is refused.
        gave_up: whether it ended early.
    """

    steady: int
    disturbed: int
    all_windows: float
    counted: float | None
    gave_up: bool


def main(arguments: list[str] | None = None) -> int:
    """Run the drill; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__)
    parser.add_argument("--loads", type=lambda text: [*map(float, text.split(","))], default=LOADS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args(arguments)
    titles = ["load", "disturbed", "refused", "gave up"]
    titles += [f"{b} : {a}, {which}" for a, b in PAIRS for which in ("all windows", "counted")]
    print(_line([*titles, "wrong, all windows", "wrong, counted"]))
    print(_line(["---:"] * (len(titles) + 2)), flush=True)
    signs: dict[tuple[str, str], int] = {}
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        study = _study(Path(folder), options.seeds, options.epochs)
        _train(study)  # fills the caches, of files too
        for load in options.loads:
            with burning(load):
                runs = _train(study)
            cells, mistakes = _judged(runs, signs)
            wrong += mistakes[1]
            print(_line([f"{load:g}", *cells, *map(str, mistakes)]), flush=True)
    return 1 if wrong else 0


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _study(folder: Path, seeds: int, epochs: int) -> Study:
    return studies.make(
        folder,
        examples=1437,
        variants=VARIANTS,
        seeds=list(range(seeds)),
        window_steps=10,
        blocks={"paired": True, "cold_start": False},
        workloads={"epochs": epochs},
    )


def _train(study: Study) -> dict[tuple[str, int], Trained]:
    """Train every run anew; returns what was measured, by variant and seed."""
    for folder in ("runs", "blocks", "states", "again"):
        shutil.rmtree(study.root / folder, ignore_errors=True)
    for block in study.blocks:
        studies.lockstep("train", "--study", study.path, "--block", block)
    return {(run.variant, run.seed): _trained(study.run_folder(run)) for run in study.runs}


def _trained(folder: Path) -> Trained:
    summary = files.read_json(folder / "summary.json")
    with open(folder / "windows.csv") as stream:
        rows = [row for row in csv.DictReader(stream) if row["warm_up"] == "0"]
    told = summary["contention"]
    steady, undisturbed = told["steady_windows"], told["undisturbed_windows"]
    counts = contention.enough(undisturbed, steady) and not told["gave_up"]
    steps = np.array([int(row["steps"]) for row in rows])
    seconds = np.array([float(row["seconds"]) for row in rows])
    return Trained(
        steady=steady,
        disturbed=steady - undisturbed,
        all_windows=float(np.median(np.repeat(seconds / steps, steps))),
        counted=summary["steady"]["step_seconds"]["median"] if counts else None,
        gave_up=told["gave_up"],
    )


def _judged(
    runs: dict[tuple[str, int], Trained], signs: dict[tuple[str, str], int]
) -> tuple[list[str], list[int]]:
    """Return the cells of a line, and how many wrong signs all windows and counted ones give.

    Args:
        signs: what is right, by pair; those that it does not hold yet are taken from here.
    """
    steady = sum(run.steady for run in runs.values())
    cells = [
        f"{sum(run.disturbed for run in runs.values()) / steady:.0%}",
        f"{sum(run.counted is None for run in runs.values())} of {len(runs)}",
        str(sum(run.gave_up for run in runs.values())),
    ]
    mistakes = [0, 0]
    seeds = sorted({seed for _, seed in runs})
    for pair in PAIRS:
        for which, name in enumerate(("all_windows", "counted")):
            times = np.array(
                [[getattr(runs[v, seed], name) or np.nan for v in pair] for seed in seeds]
            )
            times = times[np.isfinite(times).all(axis=1)]
            if len(times) < 2:
                cells.append("refused")
                continue
            found = statistics.ratio(times[:, 0], times[:, 1])
            low, high = found.low, found.high
            assert low is not None and high is not None, "two pairs have an interval"
            sign = 1 if low > 1 else -1 if high < 1 else 0
            right = signs.setdefault(pair, sign)
            mistakes[which] += sign * right < 0
            cells.append(f"{found.value:.2f} ({low:.2f} to {high:.2f})")
    return cells, mistakes


@contextmanager
def burning(load: float) -> Iterator[None]:
    """Let other processes compute meanwhile: as many as `load`, or one for a part of the time."""
    context = multiprocessing.get_context("spawn")
    count = max(1, round(load)) if load else 0
    processes = [context.Process(target=burn, args=(min(1.0, load),)) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        time.sleep(1.0 if count else 0.0)  # until they compute
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def burn(share: float) -> None:
    """Compute for a share of each period, as long as the process that asked for it lives."""
    asked = os.getppid()
    while os.getppid() == asked:
        end = time.perf_counter() + PERIOD * share
        while time.perf_counter() < end:
            pass
        time.sleep(PERIOD * (1 - share))


if __name__ == "__main__":
    sys.exit(main())
