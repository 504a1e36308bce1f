"""Where a study has runs of several processes, its batch normalisations climb over two."""

import json
import shutil
from collections.abc import Callable

import pytest

from lockstep.records import parity_verdict
from lockstep.records.record_validation import Unsound
from lockstep.study import Study
from tests.conftest import lockstep

NAME = "resnet18_cifar10"


def traced(study: Study, *variants: str) -> Study:
    for variant in variants:
        lockstep("trace", "--study", study.path, "--workload", NAME, "--variant", variant)
    return study


def judge(study: Study) -> tuple[int, dict]:
    """The gate's exit status, and whether each rung passed."""
    done = lockstep("parity", "--study", study.path, "--workload", NAME, check=False)
    rungs = json.loads(study.verdict(NAME).read_text())["comparisons"]["jax-jit"]["rungs"]
    return done.returncode, {(rung["precision"], rung["name"]): rung["passed"] for rung in rungs}


@pytest.mark.slow
def test_another_scope_of_statistics_is_stopped_by_the_gate(residual_of) -> None:
    settings = {"scales": ["1x2"], "parity": {"steps": 2, "float32_steps": 2}}
    sound = traced(residual_of("sound", **settings), "torch-eager", "jax-jit")
    status, rungs = judge(sound)
    assert (status, set(rungs.values())) == (0, {True})
    assert rungs.keys() >= parity_verdict.OVER_SEVERAL
    assert parity_verdict.read(sound, NAME) is not None

    other = traced(residual_of("other", batch_norm="global", **settings), "jax-jit")
    shutil.copy2(other.trace(NAME, "jax-jit"), sound.trace(NAME, "jax-jit"))
    status, rungs = judge(sound)
    assert status == 1
    assert not rungs["float64x2", "forward"]
    assert all(passed for (precision, _), passed in rungs.items() if precision != "float64x2")


def test_traces_are_of_two_devices_where_runs_are_of_several(study_of: Callable) -> None:
    assert study_of("several", scales=["1x1", "1x2"]).climbed["several_steps"] == 2
    assert study_of("alone", scales=["1x1"]).climbed["several_steps"] == 0


def test_a_verdict_without_the_two_processes_proves_nothing_of_them(residual_of) -> None:
    study = residual_of("several", scales=["1x2"])
    rung = {"value": 0.0, "tolerance": 0.0, "worst": "a", "first": None, "passed": True}
    rungs = [
        {"precision": precision, "name": name, "first_value": None, "first_tolerance": None, **rung}
        for precision, name in sorted(parity_verdict.RUNGS)
    ]
    curves = dict.fromkeys(("float64", "float32", "float32_tolerance"))
    verdict = {
        "schema": parity_verdict.SCHEMA,
        "workload": NAME,
        "reference": "torch-eager",
        "passed": True,
        "comparisons": {"jax-jit": {"passed": True, "rungs": rungs, "curves": curves}},
        "about": {},
    }
    study.verdict(NAME).parent.mkdir(parents=True)
    study.verdict(NAME).write_text(json.dumps(verdict))
    with pytest.raises(Unsound, match="jax-jit was not compared on rung float64x2 after"):
        parity_verdict.read(study, NAME)
    study.verdict(NAME).write_text(json.dumps(verdict | {"schema": "lockstep-parity/4"}))
    with pytest.raises(Unsound, match="run the parity stage again"):
        parity_verdict.read(study, NAME)
