"""Small studies for the measurements, made and run by the real stages."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import data
from lockstep import machine, workloads
from lockstep.study import Study, config

VARIANTS: dict[str, dict[str, Any]] = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-jit": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
}
"""The variants of the default study."""


def make(folder: Path, *, examples: int, workload: str = "mnist_cnn", **changes: Any) -> Study:
    """Make a study with its dataset and initial weights.

    Args:
        folder: that holds it all.
        examples: for training: the digits, repeated; noise where they do not fit the workload,
            rows of random tokens, or clips of noise.
        workload: its folder.
        changes: keys of the config; `workloads` are changes of the workload's recipe.
    """
    recipe = {"dataset": "digits", "optimizer": {"learning_rate": 0.01}}
    raw = {
        "study": "benchmark",
        "datasets": {"digits": {"source": "digits"}},
        "variants": VARIANTS,
        "threads": 2,
        "blocks": {"cold_start": False},
        "paths": {"results": str(folder / "results"), "data": str(folder / "data")},
        **changes,
        "workloads": {workload: recipe | changes.get("workloads", {})},
    }
    study = Study(config.complete(raw))
    study.write()
    target = study.dataset_folder("digits")
    if not target.exists():
        _write_data(target, examples, workload, study.workload(workload)["model"])
    for seed in study.config["seeds"]:
        lockstep("weights", "--study", study.path, "--workload", workload, "--seed", seed)
    return study


def _write_data(folder: Path, examples: int, workload: str, model: dict[str, Any]) -> None:
    stored = workloads.spec(workload).blank(model).arrays
    if "audio" in stored:
        data.write_clips(folder, examples, model["samples"], model["letters"])
        return
    if "tokens" in stored:
        data.write_tokens(folder, examples, model["length"], model["vocabulary"])
        return
    splits = data.many_digits(examples)
    if splits["test"][0].shape[1:] != stored["image"].shape:
        splits = {name: data.noise(examples, stored["image"].shape) for name in splits}
    data.write(folder, splits)


def block(variant: str) -> str:
    """Return the name of a variant's block."""
    return f"mnist_cnn/{variant}/1x1/seed-0"


def lockstep(*arguments: object, check: bool = True) -> None:
    """Run `python -m lockstep …` to its end."""
    subprocess.run(command(*arguments), check=check, stderr=subprocess.DEVNULL)


def command(*arguments: object) -> list[str]:
    """Return what runs `python -m lockstep …`."""
    return [sys.executable, "-m", "lockstep", *map(str, arguments)]


def caches(study: Study) -> Path:
    """Return where the compiled programs of this machine are kept."""
    return study.caches(machine.instruction_set())
