"""A small click log with its planted model, preprocessed for `dlrm`; jobs and launches with it."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import workloads
from lockstep.cluster.launch import launch
from lockstep.datasets import prepare
from lockstep.datasets.reader import read_manifest
from lockstep.engines.contract import Job, Topology
from lockstep.study import config
from lockstep.workloads import recipe
from lockstep.workloads.contract import Data

OPTIONS = {"examples": 1000, "test_part": 5, "values": 60, "rows": 100}
TABLES = [100] * 26
VARIANTS = {
    "torch": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax": {"framework": "jax", "mode": "jit"},
    "jax-eager": {"framework": "jax", "mode": "eager"},
}


def prepared(folder: Path) -> Path:
    """Preprocess the log; returns the manifest."""
    path = folder / "clicks" / "manifest.json"
    if not path.is_file():
        entry = {"source": "click_log", "options": OPTIONS}
        prepare.prepare("clicks", entry, "0" * 64, folder / "none", folder / "clicks")
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
    small = recipe.override(spec.recipe, {**spec.small, "model": {"tables": TABLES}}, where="dlrm")
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
