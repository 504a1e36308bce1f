"""The small language model of docs/adding-a-workload.md, in a folder outside of the package."""

import re
from pathlib import Path
from typing import Any

from lockstep import code, workloads
from lockstep.datasets import prepare
from lockstep.datasets.reader import read_manifest
from lockstep.engines.contract import Job, Topology
from lockstep.study import config
from lockstep.workloads import recipe
from lockstep.workloads.contract import Data
from tests.conftest import ROOT

FILES = ("letters.py", *(f"letters_lm/{name}.py" for name in ("spec", "torch_model", "flax_model")))
VARIANTS = {
    "torch": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax": {"framework": "jax", "mode": "jit"},
    "jax-eager": {"framework": "jax", "mode": "eager"},
    "jax-4": {"framework": "jax", "mode": "jit", "steps_per_dispatch": 4},
}


def write(folder: Path) -> None:
    """Write the page's files below a folder."""
    page = (ROOT / "docs" / "adding-a-workload.md").read_text()
    (folder / "letters_lm").mkdir(parents=True)
    for name, text in zip(FILES, re.findall(r"```python\n(.*?)```", page, re.DOTALL), strict=True):
        (folder / name).write_text(text)


def prepared(folder: Path) -> Path:
    """Write the page's files, make its dataset, and make both known; returns the manifest.

    Once a process, whatever the folder: a name is of one folder there.
    """
    known = code.elsewhere("lockstep.workloads.letters_lm")
    if known is not None:
        return known.parent / "data" / "manifest.json"
    write(folder)
    entry = {"source": "letters", "file": str(folder / "letters.py"), "options": {}}
    prepare.prepare("letters", entry, "0" * 64, folder, folder / "data")
    workloads.adopt(folder / "letters_lm", where="test")
    return folder / "data" / "manifest.json"


def job(
    manifest: Path,
    variant: str,
    caches: Path | None = None,
    topology: Topology | None = None,
    precision: str = "float64",
    **changes: Any,
) -> Job:
    """Return a job of the model; `changes` are of its recipe, or a variant's settings."""
    study = {
        "study": "letters",
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {"mnist_cnn": {"dataset": "digits"}},
        "variants": {variant: {**VARIANTS[variant], "precision": precision}},
    }
    settings = changes.pop("settings", {})
    workload = workloads.spec("letters_lm")
    return Job(
        workload=workload,
        recipe=recipe.override(workload.recipe, changes, where="test"),
        variant={**config.complete(study)["variants"][variant], **settings},
        data=Data.of(read_manifest(manifest)),
        window_steps=12,
        topology=topology or Topology(),
        caches=caches,
    )
