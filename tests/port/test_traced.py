"""Where a study's ladder fails, its line and its page say why."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep import engines, files
from lockstep.__main__ import _route, main
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Topology
from lockstep.parity import TRACE, climb, compare
from lockstep.port import traced
from lockstep.study import Study
from lockstep.training.feed import SharedFeed
from lockstep.workloads import layers_flax, weights
from tests.conftest import ROOT
from tests.port import faults
from tests.port.test_workload import VARIANTS


def test_a_planted_fault_fails_and_line_and_page_say_why(
    study_of: Callable[..., Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """The cause is looked for in a process that has no JAX, as in PyTorch's image."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules.update(jax=None, flax=None)"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT / 'workflow'}")
    study = study_of("mirrored", parity={"steps": 2, "float32_steps": 2})
    sound = layers_flax._im2col
    monkeypatch.setattr(layers_flax, "_im2col", lambda x, k, *more: sound(x, k[::-1, ::-1], *more))
    named = ["--study", str(study.path), "--workload", "mnist_cnn"]
    for variant in study.traces():
        assert main(["trace", *named, "--variant", variant]) == 0
    assert main(["parity", *named]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("lockstep: parity FAILS: mnist_cnn: jax-jit is not torch-eager: ")
    assert "float64 layers: conv1 differs by" in first
    why = "cause: kernel's layout. JAX: the kernel mirrored; PyTorch: the kernel as it is."
    assert last.startswith(first.partition(";")[0]) and why in last
    assert "1 further call differs in the same way" in last
    (comparison,) = files.read_json(study.verdict("mnist_cnn"))["comparisons"].values()
    assert comparison["cause"]["kind"] == "kernel's layout"
    assert not study.passed("mnist_cnn").exists()
    assert main(["report", "--study", str(study.path), "--partial"]) == 0
    assert why in html.unescape(study.report().read_text())


def seen(study: Study, workload: str, variant: str, precision: str, *, step: bool = True) -> Path:
    """Write what a trace has of the first batch, and of the state after it; returns the file."""
    route = _route(study, workload, variant)
    job = route.job(precision, Topology())
    engine = engines.start(job)
    engine.load(weights.load(route.initial))
    feed = SharedFeed(job, Reader(route.manifest, "train"), route.seed)
    arrays = dict(climb._looked(engine, feed))
    if step:
        engine.fetch(engine.train(feed.window(0, 1)))
        arrays |= dict(climb._named("step", engine.state()))
    path = study.root / f"{variant}-{precision}.npz"
    about = np.frombuffer(f'{{"schema": "{TRACE}"}}'.encode(), np.uint8)
    np.savez(path, about=about, **{f"{precision}/{n}": a for n, a in arrays.items()})  # type: ignore[arg-type]
    return path


def failed(precision: str, rung: str, first: str) -> dict[str, Any]:
    """A comparison in which a rung failed."""
    told = {"precision": precision, "name": rung, "first": first, "passed": False}
    return {"rungs": [{**told, "tolerance": 1e-5 if precision == "float32" else 1e-11}]}


def test_statistics_that_move_the_other_way_are_explained(
    residual_of: Callable[..., Study],
) -> None:
    study, workload = residual_of("residual", variants=VARIANTS), "resnet18_cifar10"
    ours = seen(study, workload, "torch-eager", "float64")
    arrays = compare.load(ours)
    for name, value in arrays.items():
        if "/step/buffer/" in name:  # 0.9 of what began as 0 or 1, and 0.1 of the batch's
            begun = float(name.endswith(".var"))
            arrays[name] = 0.1 * begun + 0.9 * (value - 0.9 * begun) / 0.1
    theirs = study.root / "theirs.npz"
    np.savez(theirs, **arrays)  # type: ignore[arg-type]
    comparison = failed("float64", "step", "buffer/stem_norm.mean")
    found = traced.cause(comparison, _route(study, workload, "torch-eager"), ours, theirs)
    assert found["kind"] == "momentum", found
    assert "further calls differ in the same way" in found["text"]


def test_products_in_tf32_are_named_though_float64_is_equal(study_of: Callable[..., Study]) -> None:
    study, workload = study_of("rounded", variants=VARIANTS), "mnist_cnn"
    ours = seen(study, workload, "torch-eager", "float32", step=False)
    with faults.products(10):
        theirs = seen(study, workload, "jax-jit", "float32", step=False)
    comparison = failed("float32", "layers", "conv1")
    found = traced.cause(comparison, _route(study, workload, "torch-eager"), ours, theirs)
    assert found["kind"] == "TF32", found
    assert "jax.config.update('jax_default_matmul_precision', 'highest')" in found["text"]
