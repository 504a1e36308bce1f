"""Where a study's ladder fails, its line and its page say why."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep import engines, files
from lockstep.__main__ import _route, main
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Topology
from lockstep.parity import TRACE, climb
from lockstep.port import traced
from lockstep.study import Study
from lockstep.training.feed import SharedFeed
from lockstep.workloads import batch_norm_flax, weights
from tests.conftest import environment
from tests.port import faults
from tests.port.test_workload import VARIANTS


def test_a_planted_fault_fails_and_line_and_page_say_why(
    residual_of: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    study = residual_of("residual", variants=VARIANTS, parity={"steps": 2, "float32_steps": 2})
    monkeypatch.setattr(batch_norm_flax, "EPSILON", 1e-3)
    named = ["--study", str(study.path), "--workload", "resnet18_cifar10"]
    for variant in study.traces():
        assert main(["trace", *named, "--variant", variant]) == 0
    assert main(["parity", *named]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    print(line)
    why = (
        "cause: epsilon. JAX: batch_norm with epsilon 0.001; PyTorch: epsilon 1e-05. "
        "`nn.BatchNorm(epsilon=1e-05)` in JAX takes the difference from"
    )
    assert line.startswith("lockstep: parity FAILS: resnet18_cifar10: jax-jit is not torch-eager")
    assert why in line and "further calls differ in the same way" in line
    (comparison,) = files.read_json(study.verdict("resnet18_cifar10"))["comparisons"].values()
    assert comparison["cause"]["kind"] == "epsilon"
    assert main(["report", "--study", str(study.path), "--partial"]) == 0
    assert why.replace("`", "") in study.report().read_text().replace("`", "")


def test_a_cause_is_looked_for_where_there_is_no_jax() -> None:
    code = "import sys; sys.modules.update(jax=None, flax=None); import lockstep.port.traced"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def seen(study: Study, workload: str, variant: str, precision: str) -> Path:
    """Write what a trace has of the first batch and of the state after it; returns the file."""
    route = _route(study, workload, variant)
    job = route.job(precision, Topology())
    engine = engines.start(job)
    engine.load(weights.load(route.initial))
    feed = SharedFeed(job, Reader(route.manifest, "train"), route.seed)
    arrays = dict(climb._looked(engine, feed))
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
    residual_of: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, workload = residual_of("residual", variants=VARIANTS), "resnet18_cifar10"
    monkeypatch.setattr(batch_norm_flax, "MOMENTUM", 0.9)
    both = [seen(study, workload, variant, "float64") for variant in VARIANTS]
    first = next(
        iter(workloads.of(study.workload(workload)).buffers(study.workload(workload)["model"]))
    )
    comparison = failed("float64", "step", f"buffer/{first.name}")
    found = traced.cause(comparison, _route(study, workload, "torch-eager"), *both)
    print(found)
    assert found["kind"] == "momentum"


def test_products_in_tf32_are_told_from_other_roundings(study_of: Callable[..., Study]) -> None:
    study, workload = study_of("rounded", variants=VARIANTS), "mnist_cnn"
    ours = seen(study, workload, "torch-eager", "float32")
    for bits, kind in ((10, "TF32"), (7, None)):
        with faults.products(bits):
            theirs = seen(study, workload, "jax-jit", "float32")
        comparison = failed("float32", "layers", "conv1")
        found = traced.cause(comparison, _route(study, workload, "torch-eager"), ours, theirs)
        print(found)
        assert found["kind"] == kind
