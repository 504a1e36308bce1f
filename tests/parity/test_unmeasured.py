"""What cannot be measured never passes, and is named: on small traces, without a framework."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockstep.parity import compare
from lockstep.parity.rungs import Rung
from lockstep.study import Study
from tests.conftest import lockstep
from tests.parity.small import STEPS, Trace, at, edited, small, written


def failures(trace: Trace, reference: Trace, firm_steps: int = 10) -> list[Rung]:
    return [r for r in compare.compare(trace, reference, firm_steps=firm_steps) if not r.passed]


def first(trace: Trace, reference: Trace, firm_steps: int = 10) -> tuple[str, str, str | None]:
    """Precision, rung and name of the first that fails."""
    rung = failures(trace, reference, firm_steps)[0]
    return rung.precision, rung.name, rung.first


def test_equal_traces_pass() -> None:
    assert failures(small(), small()) == []
    assert failures(small(), small(), firm_steps=1) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_final_state_that_is_not_finite(value: float) -> None:
    spoiled = edited(float32__final__a=value)
    assert first(spoiled, small()) == ("float32", "final", "a")
    assert first(small(), spoiled) == ("float32", "final", "a")
    assert first(spoiled, spoiled) == ("float32", "final", "a")


def test_a_twin_that_is_not_finite_lets_nothing_else_pass() -> None:
    blind = edited(twin__final__a=np.nan)
    assert first(edited(float32__final__a=100.0), blind) == ("float32", "final", "a")
    assert first(small(), blind) == ("float32", "final", "a of a twin")


def test_nor_do_some_twins_of_a_rung_where_the_largest_counts() -> None:
    blind = edited(twin__step__buffer=np.array([1, np.nan, 1, 1], np.float32))
    (rung,) = failures(edited(float32__step__a=7.0, twin__step__a=7.0), blind, firm_steps=1)
    assert (rung.name, rung.first, rung.first_value) == ("step", "a", pytest.approx(6))
    for firm_steps in (1, 10):
        assert first(small(), blind, firm_steps) == ("float32", "step", "buffer of a twin")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("step", [3, 11])
def test_a_twins_loss_that_is_not_finite(step: int, value: float) -> None:
    blind = edited(twin__steps__loss=at(step, value))
    assert first(small(), blind) == ("float32", "steps", f"step {step} of a twin")
    assert first(edited(float32__steps__loss=at(11, 50.0)), blind)[1] == "steps"


def diverging(step: int) -> Trace:
    """A trace of which nothing is finite from a step on."""
    losses = np.where(np.arange(STEPS) < step, 1.0, np.nan)
    every = {f"{p}__steps__loss": losses for p in ("float64", "float32", "twin")}
    every |= {f"{p}__final__a": np.nan for p in ("float64", "float32", "twin")}
    every |= {f"{p}__evaluation__loss": np.nan for p in ("float32", "twin")}
    return edited(**every, float64__evaluation__loss=np.nan)


def test_what_diverges_in_both_frameworks_at_one_step_is_compared_up_to_there() -> None:
    rungs = compare.compare(diverging(3), diverging(3))
    assert all(rung.passed for rung in rungs)
    told = [r.worst for r in rungs if r.name in ("final", "edge", "evaluation", "after")]
    assert told == ["nothing finite: both diverge at step 3"] * 6
    apart = diverging(3)
    apart["float64/steps/loss"][2] = 1.1
    assert first(apart, diverging(3)) == ("float64", "steps", "step 2")


@pytest.mark.parametrize("step", [2, 4, STEPS])
def test_what_diverges_at_different_steps_is_different(step: int) -> None:
    assert first(diverging(step), diverging(3))[1:] == ("steps", f"step {min(step, 3)}")


def test_what_diverges_after_the_last_step_is_compared_up_to_there() -> None:
    blown = edited(float64__evaluation__loss=np.inf)
    assert failures(blown, blown) == []
    assert first(blown, small()) == ("float64", "evaluation", "loss")
    assert first(edited(float64__evaluation__loss=np.inf, float64__final__a=2.0), blown) == (
        *("float64", "final"),
        "a",
    )


def test_a_state_before_that_is_held_to_its_twins_in_float32_too() -> None:
    twin = np.full(4, 1 + 1e-4, np.float32)
    blown = edited(float32__evaluation__loss=np.inf, twin__final__a=twin)
    apart = edited(float32__evaluation__loss=np.inf, float32__final__a=1 + 2e-4)
    assert failures(apart, blown) == []
    two = {"float32__final__a": 2.0, "twin__final__a": 2.0}
    far = edited(float32__evaluation__loss=np.inf, **two)
    assert first(far, blown) == ("float32", "final", "a")


def test_what_is_huge_is_measured() -> None:
    huge = edited(float64__final__a=1e200)
    assert failures(huge, huge) == []
    (rung,) = failures(edited(float64__final__a=1.1e200), huge)
    assert rung.value == pytest.approx(0.1)


def test_what_never_was_finite_proves_nothing() -> None:
    assert first(diverging(0), diverging(0)) == ("float64", "steps", "step 0")


def test_a_tensor_that_only_one_side_has() -> None:
    short, long = edited(float64__gradient__b=None), small()
    assert first(short, long) == ("float64", "gradient", "b")
    assert first(long, short) == ("float64", "gradient", "b")


RUNGS = ["weights", "forward", "loss", "gradient", "step", "batches", "steps", "final", "restored"]
# A model of integers has no `input`: the traces say so, and the report asks for it elsewhere.
EXACT = ["edge", "evaluation", "after", "general", "canary"]


@pytest.mark.parametrize("rung", [*RUNGS, *EXACT])
def test_a_rung_that_both_sides_lack(rung: str) -> None:
    below = {"batches": "steps/checksum", "steps": "steps/loss"}.get(rung, f"{rung}/")
    lacking = {k: v for k, v in small().items() if not k.startswith(f"float64/{below}")}
    kinds = {"batches": "steps/checksum", "steps": "steps", "canary": "disturbances"}
    kind = kinds.get(rung, "tensors")
    assert first(lacking, lacking) == ("float64", rung, f"number of {kind}")


@pytest.mark.parametrize("rung", RUNGS)
def test_a_float32_rung_that_both_sides_lack(rung: str) -> None:
    below = {"batches": "steps/checksum", "steps": "steps/loss"}.get(rung, f"{rung}/")
    lacking = {k: v for k, v in small().items() if not k.startswith(f"float32/{below}")}
    for firm_steps in (1, 10):
        assert first(lacking, lacking, firm_steps)[:2] == ("float32", rung)


@pytest.mark.parametrize("precision", ["float64", "float32", "twin"])
def test_another_number_of_steps(precision: str, tmp_path: Path) -> None:
    short = edited(**{f"{precision}__steps__loss": np.ones(STEPS - 2)})
    where = "float64" if precision == "float64" else "float32"
    for pair in ((short, small()), (small(), short)):
        assert first(*pair) == (where, "steps", "number of steps")
    verdict = compare.judge("mnist_cnn", written(tmp_path, sound=small(), short=short))
    assert not verdict["passed"]
    assert verdict["comparisons"]["short"]["curves"][where] is None


def test_another_number_of_batches() -> None:
    short = edited(float64__steps__checksum=np.zeros(STEPS - 2, np.uint32))
    assert first(short, small()) == ("float64", "batches", "number of steps/checksum")


def test_losses_of_nothing_are_equal() -> None:
    changes = {f"{p}__steps__loss": at(11, 0.0) for p in ("float64", "float32", "twin")}
    zero = edited(**changes)
    assert failures(zero, zero) == []
    apart = edited(**changes | {f"{p}__steps__loss": at(11, 1e-3) for p in ("float32", "twin")})
    assert first(apart, zero) == ("float32", "steps", "step 11")


def test_a_failure_is_told_with_the_tolerance_that_it_broke(tmp_path: Path) -> None:
    """Not with that of the worst tensor, which a twin had made larger."""
    reference = edited(twin__steps__loss=at(10, 1 + 1e-3))
    losses = at(11, 3.0)
    losses[3] = 1 + 2e-5
    apart = edited(float32__steps__loss=losses, twin__steps__loss=losses)
    traces = written(tmp_path, sound=reference, apart=apart)
    verdict = compare.judge("mnist_cnn", traces)
    (rung,) = [r for r in verdict["comparisons"]["apart"]["rungs"] if not r["passed"]]
    assert (rung["worst"], rung["tolerance"]) == ("step 11", pytest.approx(1e-2))
    assert (rung["first"], rung["first_tolerance"]) == ("step 3", pytest.approx(1e-5))
    assert [*compare.explain(verdict).values()] == [
        "mnist_cnn: apart is not sound: float32 steps: step 3 differs by 2.00e-05, allowed 1.0e-05"
    ]


def test_what_is_infinite_is_told_too(tmp_path: Path) -> None:
    traces = written(tmp_path, sound=edited(twin__final__a=np.nan), other=small())
    verdict = json.loads(json.dumps(compare.judge("mnist_cnn", traces), allow_nan=False))
    assert [*compare.explain(verdict).values()] == [
        "mnist_cnn: other is not sound: float32 final: a of a twin differs by infinity, "
        "allowed 1.0e-05"
    ]


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[: len(content) // 2], lambda content: b"[1, 2]"],
    ids=["empty", "truncated", "no trace"],
)
def test_a_damaged_trace_is_a_line_and_shuts_the_gate(
    study_of: Callable[..., Study], damage: Callable[[bytes], bytes]
) -> None:
    study = study_of()
    path = study.trace("mnist_cnn", "jax-jit")
    path.parent.mkdir(parents=True)
    written(path.parent, **{name: small() for name in study.traces()})
    gate = ("parity", "--study", study.path, "--workload", "mnist_cnn")
    lockstep(*gate)
    assert study.passed("mnist_cnn").is_file()
    path.write_bytes(damage(path.read_bytes()))
    done = lockstep(*gate, check=False)
    assert done.returncode == 2
    assert "jax-jit.npz: not a readable trace" in done.stderr
    assert "Traceback" not in done.stderr
    assert not study.passed("mnist_cnn").exists()
