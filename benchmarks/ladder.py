"""How near the float32 rungs of the ladder come to their tolerances where units turn.

A small `resnet18_cifar10`, whose two sides are equal in float64, from several sets of initial
weights, and `resnet50_imagenet` at its full size on batches of 8, by the stages of the workflow:
with a rung beyond its tolerance the two sides would be called different, and the study would not
run.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import studies
from benchmarks.row import Row, extremes

WORKLOAD = "resnet18_cifar10"
LARGE, LARGE_RECIPE = "resnet50_imagenet", {"global_batch": 8, "epochs": 1}
RECIPE: dict[str, Any] = {
    "global_batch": 16,
    "model": {"blocks": [1, 1], "width": 8},
    "optimizer": {"learning_rate": 0.02},
    "epochs": 1,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "torch-eager": {"framework": "torch", "mode": "eager", "memory_format": "channels_last"},
    "jax-jit": {"framework": "jax", "mode": "jit"},
}
RUNGS = ("forward", "gradient", "step", "steps", "final")


def measure(quick: bool) -> list[Row]:
    """Return how many sets pass, and what share of its tolerance each rung takes."""
    seeds, steps, examples = (1, 3, 160) if quick else (8, 25, 1600)
    shares: dict[str, list[float]] = {rung: [] for rung in RUNGS}
    passed = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            place = Path(folder) / str(seed)
            rungs = _float32(place, WORKLOAD, RECIPE, seed, (3, steps), examples)
            passed.append(float(all(rung["passed"] for rung in rungs.values())))
            for rung in RUNGS:
                shares[rung].append(_share(rungs[rung]))
        large = {}
        if not quick:
            place = Path(folder) / "large"
            large = _float32(place, LARGE, LARGE_RECIPE, 0, (1, 2), examples=64)
    sound = [float(np.mean(passed))]
    return [
        extremes(f"share of {seeds} sets of weights that pass", "", sound, (">=", 1.0)),
        *(extremes(f"share of its tolerance: {rung}", "", found) for rung, found in shares.items()),
        *(_large(rung) for rung in large.values() if rung["name"] in RUNGS),
    ]


def _large(rung: dict[str, Any]) -> Row:
    what = f"{LARGE}: share of its tolerance: {rung['name']}"
    return extremes(what, "", [_share(rung)], ("<=", 1.0))


def _share(rung: dict[str, Any]) -> float:
    return float(rung["value"]) / float(rung["tolerance"])


def _float32(
    folder: Path,
    workload: str,
    recipe: dict[str, Any],
    seed: int,
    steps: tuple[int, int],
    examples: int,
) -> dict[str, dict[str, Any]]:
    """Return the float32 rungs.

    Args:
        steps: in float64 and in float32.
    """
    study = studies.make(
        folder,
        examples=examples,
        workload=workload,
        workloads=recipe,
        variants=VARIANTS,
        seeds=[seed],
        parity={"steps": steps[0], "float32_steps": steps[1]},
    )
    of = ("--study", study.path, "--workload", workload)
    for variant in VARIANTS:
        studies.lockstep("trace", *of, "--variant", variant)
    studies.lockstep("parity", *of, check=False)
    verdict = json.loads(study.verdict(workload).read_text())
    rungs = verdict["comparisons"]["jax-jit"]["rungs"]
    return {rung["name"]: rung for rung in rungs if rung["precision"] == "float32"}
