"""Layers in 8-bit integers: Linen's and NNX's have the sums of PyTorch's, of all that there are."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from lockstep import workloads
from lockstep.deploy import agreement, compressed, compressing
from lockstep.deploy.task import Task
from lockstep.study import Study, config
from lockstep.workloads import weights
from tests import pictures, texts
from tests.conftest import DIGITS

SMALL = {"resnet18_cifar10": {"blocks": [1, 1], "width": 4, "size": 12}}
DATA: dict[str, Callable[[Path], Path]] = {
    "bert_classify": lambda folder: texts.prepared(folder, "glue"),
    "resnet18_cifar10": lambda folder: pictures.write(folder / "mine", pictures.coloured()),
}
VARIANTS = {name: {"framework": name, "mode": "eager"} for name in ("torch", "jax")}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Engines tell JAX how precise it is, for the whole process."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


def task(workload: str, framework: str, folder: Path) -> Task:
    """Return a task about a state whose every tensor is as it was drawn."""
    spec = workloads.spec(workload)
    model = SMALL.get(workload) or spec.small["model"]
    entry = {"dataset": "mine", "model": model}
    raw = {**DIGITS, "datasets": {"mine": {"source": "digits"}}, "workloads": {workload: entry}}
    study = Study(config.complete({**raw, "variants": VARIANTS}))
    recipe = study.workload(workload)
    if not (folder / "data").exists():
        DATA[workload](folder / "data")
        state = weights.initial(spec, recipe["model"], 0)
        weights.save(folder / "final.safetensors", state)
    (manifest,) = (folder / "data").glob("*/manifest.json")
    empty = dict.fromkeys(("kind", "route", "artefact", "result"), "")
    return Task(
        framework=framework,
        precision="float32",
        recipe=recipe,
        variant=study.variant(framework),
        dataset=str(manifest),
        states=[str(folder / "final.safetensors")],
        scratch=str(folder),
        caches=str(folder),
        queries=100,
        batches=[8],
        threads=1,
        timeout=60,
        forms=["w8a8"],
        **empty,
    )


def compared(workload: str, first: str, folder: Path) -> dict[str, Any]:
    """Return the row of a form that is made with one framework's layers, and evaluated by both."""
    made = compressing.main(task(workload, first, folder))
    found = {name: compressed.main(task(workload, name, folder)) for name in VARIANTS}
    _, row = agreement.rows(folder, made, found, ["w8a8"], 1)
    assert not row["reason"], row
    return row


@pytest.mark.parametrize(
    ("workload", "first"), [("bert_classify", "jax"), ("resnet18_cifar10", "torch")]
)
def test_all_sums_are_equal(workload: str, first: str, tmp_path: Path) -> None:
    """Whatever lies between two layers (normalisation, attention), and whichever is looked into."""
    row = compared(workload, first, tmp_path)
    assert row["sums"]["equal"] == row["sums"]["compared"] > 100_000
    # Integers have moved the logits, by as much in both.
    moved = row["frameworks"]["jax"]["from_float32"]
    assert 1e-4 < moved["largest"] / moved["scale"] < 0.2
    assert row["between"]["largest"] < 1e-9 * row["between"]["scale"]


def test_in_float32_a_last_place_between_layers_decides_an_integer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "BETWEEN", "float32")
    sums = compared("bert_classify", "torch", tmp_path)["sums"]
    assert 0.999 < sums["equal"] / sums["compared"] < 1
