"""What a rung allows: distances, float32's tolerances, and units that turn by chance."""

from collections.abc import Sequence

import numpy as np
import pytest

from lockstep import workloads
from lockstep.parity import compare, distances, update
from lockstep.workloads import optimizers
from tests.parity import small


def first_failure(rungs: list[compare.Rung]) -> tuple[str, str | None]:
    for rung in rungs:
        if not rung.passed:
            return rung.name, rung.first
    return "none", None


def test_distance_is_relative_and_has_a_floor() -> None:
    one = np.ones(4)
    assert distances.distance(one * (1 + 1e-3), one) == pytest.approx(1e-3)
    assert distances.distance(np.full(4, 1e-18), np.zeros(4)) < 1e-11
    assert distances.distance(one, np.ones(5)) == float("inf")
    assert distances.distance(one * np.nan, one) == float("inf")


def traces_with(gradient: float, twin: float) -> list[dict[str, np.ndarray]]:
    """Two float32 traces whose gradients are so far apart, from each other and from their twins."""
    one, loss = np.ones(4, np.float32), np.ones(3)
    traces = []
    for moved in (gradient, 0.0):
        trace = {}
        for precision, apart in (("float32", 0.0), ("twin", twin)):
            here = {
                "weights/a": one * np.float32(0.9),
                "forward/logits": one,
                "loss/loss": one,
                "gradient/a": one * np.float32(1 + moved + apart),
                "gradient/b": one,
                "step/a": one,
                "batch/checksum": np.uint32(0),
                "steps/checksum": np.zeros(3, np.uint32),
                "steps/loss": loss,
                "final/a": one,
                "weights/buffer/c": one * 0,
                "step/buffer/c": one,
                "restored/a": one,
                "prepared/a": one,
                "evaluation/loss": one,
                **{
                    f"canary/{what}/{which}": np.float64(k)
                    for what in ("checksum", "expected", "loss")
                    for k, which in enumerate(small.DISTURBANCES)
                },
            }
            trace |= {f"{precision}/{name}": array for name, array in here.items()}
        traces.append(trace)
    return traces


@pytest.mark.parametrize(
    ("gradient", "twin", "found", "firmly"),
    [
        (5e-6, 0.0, "none", "none"),
        (1e-4, 0.0, "gradient", "gradient"),
        (1e-3, 2e-4, "none", "gradient"),  # ten times as far as a twin, and no further
        (1e-2, 2e-4, "gradient", "gradient"),
    ],
)
def test_a_float32_gradient_may_be_as_far_as_ten_twins_where_a_workload_says_so(
    gradient, twin, found: str, firmly: str
) -> None:
    traces = traces_with(gradient, twin)
    assert first_failure(compare.compare(*traces, ["float32"], firm_steps=1))[0] == found
    assert first_failure(compare.compare(*traces, ["float32"]))[0] == firmly


def told(
    apart: Sequence[float], twins: Sequence[float], **states: float
) -> list[dict[str, np.ndarray]]:
    """Two traces whose gradients are so far apart on each batch, their twins' too, and states."""
    traces = traces_with(apart[0], twins[0])
    one = np.ones(4, np.float32)
    for arrays, here in zip(traces, (1.0, 0.0), strict=True):
        for k in range(1, len(apart)):
            arrays[f"float32/gradients/{k}/a"] = one * np.float32(1 + here * apart[k])
            arrays[f"twin/gradients/{k}/a"] = one * np.float32(1 + here * apart[k] + twins[k])
            arrays |= {f"{p}/gradients/{k}/b": one for p in ("float32", "twin")}
        for rung, moved in states.items():
            name = "step/buffer/c" if rung == "buffer" else f"{rung}/a"
            for precision in ("float32", "twin"):
                arrays[f"{precision}/{name}"] = one * np.float32(1 + here * moved)
    return traces


TURNED = 3e-3  # what a unit that turns moves a gradient by


@pytest.mark.parametrize(
    ("traces", "found"),
    [
        (told([TURNED, 2e-5, TURNED], [1e-5, 1e-5, 1e-5]), "none"),  # it turns in two batches
        (told([TURNED, TURNED, TURNED], [1e-5, 1e-5, TURNED]), "gradient"),  # less exact in each
        (told([TURNED, TURNED, TURNED], [1e-5, TURNED, TURNED]), "none"),  # so many units: always
        # What follows from it: of the tenth that a step has changed, ten times as much.
        (told([TURNED, 0.0], [0.0, 0.0], step=2e-3, final=2e-3), "none"),
        (told([TURNED, 0.0], [0.0, 0.0], step=4e-3), "step"),
        (told([TURNED, 0.0], [0.0, 0.0], final=4e-3), "final"),
        (told([1e-5, 0.0], [0.0, 0.0], step=2e-3), "step"),  # not moved so by its gradient
        (told([TURNED, 0.0], [0.0, 0.0], buffer=TURNED), "step"),  # of the forward pass
        (told([TURNED, np.nan, 0.0], [0.0, 0.0, 0.0]), "gradient"),
        (told([TURNED, 0.0, 0.0], [0.0, np.nan, 0.0]), "gradient"),
        (told([0.0, -2.0, 0.0], [0.0, 0.0, 0.0]), "gradient"),  # another sign, on one batch alone
    ],
    ids=range(11),
)
def test_a_unit_that_turns_in_some_batches_is_no_difference(traces, found: str) -> None:
    assert first_failure(compare.compare(*traces, ["float32"], firm_steps=1))[0] == found


def test_a_batch_that_one_trace_alone_tells_is_a_difference() -> None:
    lacking, whole = told([0.0, 0.0], [0.0, 0.0])
    del lacking["float32/gradients/1/a"]
    rungs = compare.compare(lacking, whole, ["float32"], firm_steps=1)
    assert first_failure(rungs) == ("gradient", "a")


def test_the_first_ten_float32_losses_are_held_to_the_fixed_tolerance() -> None:
    trace, reference = ({f"{p}/steps/loss": np.ones(12) for p in ("float32", "twin")} for _ in "ab")
    trace["twin/steps/loss"][5:7] += 1e-3
    assert distances.loss_envelope(trace, reference, compare.FIRM_STEPS).tolist() == pytest.approx(
        [1e-5] * 10 + [1e-2] * 2
    )
    assert workloads.spec("mnist_cnn").firm_steps == compare.FIRM_STEPS == 10


@pytest.mark.parametrize(("repeatable", "passes"), [(True, False), (False, True)])
def test_a_step_is_held_to_what_two_gradients_may_differ_by(repeatable: bool, passes: bool) -> None:
    """On a GPU the gradient of the step is not, to the bit, that which the trace tells."""
    shares = {"p": optimizers.Share(1.0, 0.0)}
    rule = update.Rule(optimizer=small.ABOUT["optimizer"], shares=shares, repeatable=repeatable)
    moved = small.edited(float64__step__momentum__p=1 + 1e-12)
    rungs = compare.compare(moved, small.small(), ["float64"], rule=rule)
    assert next(rung for rung in rungs if rung.name == "update").passed == passes
    rounded = small.edited(float64__step__momentum__p=1 + 1e-7)
    rungs = compare.compare(rounded, small.small(), ["float64"], rule=rule)
    assert not next(rung for rung in rungs if rung.name == "update").passed
