"""How long it takes to the first step, with compiled programs from the cache and without.

Real runs of two steps, each in processes of its own; the figures are those of their records: from
the start of the process (import, staging, tracing, compiling) to the end of the first step. Cold
means an empty cache of compiled programs, warm one that an equal run has filled; files are in the
page cache in both. Importing a framework costs the same either way, so the part that a cache can
save (tracing, compiling and the first step) is told apart.
"""

import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import studies
from benchmarks.row import Row, ratio, times
from lockstep import files
from lockstep.study import Study

LIMIT = ("<=", 0.25)
COMPILED = {"jax-jit": 3, "torch-compile": 1}  # how often from cold; compiling takes a minute


def measure(quick: bool) -> list[Row]:
    """Return times to the first step, cold and warm, and their ratio."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        study = studies.make(Path(folder), examples=640, window_steps=1, workloads={"max_steps": 2})
        if quick:
            return _compiled(study, "jax-jit", 1)
        _start(study, "torch-eager")  # brings PyTorch's files into the page cache
        eager = [sum(_start(study, "torch-eager"))]
        rows.append(times("torch-eager: process to first step", "s", eager))
        for variant, repeats in COMPILED.items():
            rows += _compiled(study, variant, repeats)
    return rows


def _compiled(study: Study, variant: str, repeats: int) -> list[Row]:
    cold, warm = [], []
    for _ in range(repeats):
        shutil.rmtree(studies.caches(study), ignore_errors=True)
        cold.append(_start(study, variant, "cold"))
        warm.append(_start(study, variant, "warm"))
    before = [np.array([sum(time) for time in side]) for side in (cold, warm)]
    own = [np.array([time[1] for time in side]) for side in (cold, warm)]
    return [
        ratio(f"{variant}: compile to first step, warm : cold", own[1], own[0], LIMIT),
        ratio(f"{variant}: process to first step, warm : cold", before[1], before[0], LIMIT),
        times(f"{variant}: compile to first step, cold", "s", own[0]),
        times(f"{variant}: compile to first step, warm", "s", own[1]),
        times(f"{variant}: process to first step, cold", "s", before[0]),
        times(f"{variant}: process to first step, warm", "s", before[1]),
    ]


def _start(study: Study, variant: str, cache: str | None = None) -> tuple[float, float]:
    """Train anew; returns the seconds before compilation, and from there to the first step."""
    block = studies.block(variant)
    run = study.root / "runs" / block
    if run.exists():
        shutil.rmtree(run)
    studies.lockstep("train", "--study", study.path, "--block", block)
    summary = files.read_json(run / "summary.json")
    if cache and summary["cache"] != cache:
        raise RuntimeError(f"{variant} found a {summary['cache']} cache instead of a {cache} one")
    with open(run / "windows.csv") as stream:
        first = next(csv.DictReader(stream))
    seconds = summary["seconds"]
    before = seconds["import"] + seconds["staging"]
    return before, seconds["trace"] + seconds["compile"] + float(first["seconds"])
