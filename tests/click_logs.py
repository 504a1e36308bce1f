"""Made-up ratings in MovieLens' format, preprocessed for `dlrm`: five tables compile in seconds."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import workloads
from lockstep.cluster.launch import launch
from lockstep.datasets import keys, prepare
from lockstep.datasets.reader import read_manifest
from lockstep.engines.contract import Job, Topology
from lockstep.study import config
from lockstep.workloads import recipe
from lockstep.workloads.contract import Data

EXAMPLES, USERS, ITEMS, ROWS = 1000, 60, 80, 100
LOOKUPS = 5
MODEL = {"preset": "movielens", "tables": [ROWS] * LOOKUPS}
VARIANTS = {
    "torch": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax": {"framework": "jax", "mode": "jit"},
    "jax-eager": {"framework": "jax", "mode": "eager"},
}


def prepared(folder: Path) -> Path:
    """Write and preprocess the ratings; returns the manifest."""
    path = folder / "clicks" / "manifest.json"
    if not path.is_file():
        users, items, stars = (
            (high * keys.uniform(EXAMPLES, "rating", high) ** power).astype(int)
            for high, power in ((USERS, 1), (ITEMS, 2), (5, 1))
        )
        lines = [
            f"{user}\t{item}\t{1 + (star + user % 3 + item % 2) % 5}\t{900 * k}\n"
            for k, (user, item, star) in enumerate(zip(users, items, stars))
        ]
        (folder / "u.data").write_text("".join(lines))
        told = [f"{user}|{20 + user % 7}|{'MF'[user % 2]}|{user % 4}|0\n" for user in range(USERS)]
        (folder / "u.user").write_text("".join(told))
        entry = {"source": "movielens", "options": {"test_part": 5}}
        prepare.prepare("clicks", entry, "0" * 64, folder, folder / "clicks")
    return path


def variant(name: str, precision: str = "float64") -> dict[str, Any]:
    """Return a variant's complete config."""
    study = {
        "study": "clicks",
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {"mnist_cnn": {"dataset": "digits"}},
        "variants": {name: {**VARIANTS[name], "precision": precision}},
    }
    return config.complete(study)["variants"][name]


def entry(**changes: Any) -> dict[str, Any]:
    """Return the recipe of a small model of the log."""
    spec = workloads.spec("dlrm")
    small = recipe.override(spec.recipe, {**spec.small, "model": MODEL}, where="dlrm")
    return recipe.override(small, changes, where="dlrm")


def job(
    manifest: Path,
    name: str,
    caches: Path | None = None,
    topology: Topology | None = None,
    precision: str = "float64",
    **changes: Any,
) -> Job:
    """Return a job; `changes` are of its recipe."""
    return Job(
        workload=workloads.spec("dlrm"),
        recipe=entry(**changes),
        variant=variant(name, precision),
        data=Data.of(read_manifest(manifest)),
        window_steps=12,
        topology=topology or Topology(),
        caches=caches,
    )


def launched(module: str, request: dict[str, Any], folder: Path, devices: int) -> dict[str, Any]:
    """Run a module's processes with a request; returns the arrays that they wrote."""
    told = {**request, "output": str(folder / "found.npz")}
    path = folder / "request.json"
    path.write_text(json.dumps(told))
    processes = 1 if request["side"] == "jax" else devices
    command = [sys.executable, "-m", module, str(path)]
    assert launch(command, processes=processes, threads=2, devices=devices // processes) == 0
    with np.load(told["output"]) as stored:
        return dict(stored)
