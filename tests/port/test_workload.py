"""`lockstep port study.json --workload NAME`: why the two models of a workload differ."""

from collections.abc import Callable

import pytest

from lockstep.__main__ import main
from lockstep.study import Study
from lockstep.workloads import batch_norm_flax

VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "jax-jit": {"framework": "jax", "mode": "jit"},
}


def test_the_cause_of_what_a_ladder_found_is_named(
    residual_of: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    study = residual_of("residual", variants=VARIANTS)
    command = ["port", str(study.path), "--workload", "resnet18_cifar10"]
    assert main([*command, "--train", "--gradients"]) == 0
    assert "gradients, float64: " in capsys.readouterr().out
    monkeypatch.setattr(batch_norm_flax, "EPSILON", 1e-3)
    assert main(command) == 1
    told = capsys.readouterr().out
    assert "cause: epsilon. the port: batch_norm with epsilon 0.001" in told


def test_a_workload_needs_a_variant_of_each_framework_and_has_one_precision(
    study_of: Callable[..., Study], capsys: pytest.CaptureFixture
) -> None:
    study = study_of("digits", variants={"jax-jit": VARIANTS["jax-jit"]})
    command = ["port", str(study.path), "--workload", "mnist_cnn"]
    assert main(command) == 2
    assert "study.json: no variant has framework torch; add one" in capsys.readouterr().err
    study = study_of("both", variants=VARIANTS)
    assert main([*command[:1], str(study.path), *command[2:], "--precision", "float32"]) == 2
    assert "the models compute in float64 alone" in capsys.readouterr().err
    assert main([*command[:1], str(study.path), *command[2:]]) == 0
