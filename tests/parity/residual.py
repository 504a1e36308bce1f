"""Small residual networks for the ladder: what they are, and one climb by any variant."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep import workloads
from lockstep.parity import compare
from lockstep.study import config
from lockstep.workloads import recipe, weights
from tests.conftest import ROOT
from tests.parity import climber

STEPS = 4
CHANGES: dict[str, Any] = {
    "model": {"blocks": [1, 1], "width": 4, "size": 12, "classes": 10},
    "global_batch": 32,
    "optimizer": {"learning_rate": 0.05},
    "label_smoothing": 0.1,
    "augment": {"padding": 2},
}
VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-native": {"framework": "jax", "mode": "jit"},
    "jax-im2col": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
}


@dataclass(frozen=True)
class Climb:
    """Climbs the ladder with small residual networks."""

    folder: Path
    manifest: Path
    caches: Path

    def request(self, name: str, variant: str, changes: dict, steps: int, precision: str) -> dict:
        spec = workloads.spec(name)
        merged = copy.deepcopy(CHANGES)
        for key, value in changes.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
        entry = recipe.override(spec.recipe, merged, where=name)
        problem = spec.check(entry, 1)
        assert problem is None, problem
        state = weights.initial(spec, entry["model"], 0)
        path = self.folder / f"{weights.digest(state)}.safetensors"
        weights.save(path, state)
        study = {
            "study": "residual",
            "datasets": {"digits": {"source": "digits"}},
            "workloads": {"mnist_cnn": {"dataset": "digits"}},
            "variants": {variant: {**VARIANTS[variant], "precision": precision}},
        }
        return {
            "recipe": {"workload": name, **entry},
            "variant": config.complete(study)["variants"][variant],
            "manifest": str(self.manifest),
            "seed": 0,
            "initial": str(path),
            "steps": steps,
            "caches": str(self.caches),
            "window_steps": 25,
        }

    def __call__(
        self,
        name: str,
        variant: str,
        steps: int = STEPS,
        precision: str = "float64",
        processes: int = 1,
        batches: int = 1,
        **changes: object,
    ) -> dict[str, np.ndarray]:
        """Return a trace, by as many processes."""
        request = self.request(name, variant, changes, steps, precision) | {"batches": batches}
        return climber.climbed(request, self.folder, processes, threads=2)


@contextmanager
def climbing(folder: Path, manifest: Path, caches: Path) -> Iterator[Climb]:
    """Climb, also in processes that a launcher starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}/workflow:{ROOT}")
        yield Climb(folder, manifest, caches)


def verdict(trace: dict, reference: dict) -> tuple[str, str | None]:
    (precision,) = {name.split("/")[0] for name in trace}
    for rung in compare.compare(trace, reference, [precision]):
        if not rung.passed:
            return rung.name, rung.first
    return "none", None
