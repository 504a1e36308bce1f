"""Compares two traces rung by rung, and says which tensor differs first and by how much.

Tensors are compared by the relative L2 norm of their difference, with a floor below which a
reference tensor counts as zero: element-wise differences of gradients are orders of magnitude
larger than norm-wise ones and say nothing.

Float64 is the sharp gate. In float32 a unit whose input is within rounding of zero opens in one
framework and stays shut in the other, and in a residual network that moves a gradient by a
thousandth. It is chance in which batch one turns, and whether a framework's own twin sees it; what
is computed less exactly is so in each batch. So where a workload says that units turn
(`Workload.firm_steps`), the float32 gradient is compared on several batches: the one counts where
the frameworks are closest, and the tolerance is made from the median of the twins. What follows
from a gradient may be ten times as far apart as gradients were on any of them.

What cannot be measured fails: a tensor that only one trace has, a rung without any, and a number
that is not finite, be it a framework's or its twin's. One thing alone is not held against them:
that both losses stop being finite at the same step, not the first. Then nothing is left after it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lockstep.parity.distances import (
    TOLERANCE,
    Arrays,
    as_many_steps,
    batches,
    distance,
    diverged_at,
    from_twin,
    from_twins,
    loss_envelope,
    losses_apart,
    losses_from_twins,
    names,
    per_step,
    tolerance_from_twin,
)

FIRM_STEPS = 10  # float32 steps held to the fixed tolerance alone, unless the workload says fewer

Item = tuple[str, float, float]
"""A tensor's (or step's) name, its distance and its tolerance."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What was found on one rung.

    Attributes:
        precision: float64 or float32.
        name: of the rung.
        value: the largest distance over its tensors (or steps).
        tolerance: that it was held to, at that tensor.
        worst: the tensor (or step) with the largest share of its tolerance.
        first: the first tensor (or step) beyond its tolerance, None if there is none.
        first_value: its distance.
        first_tolerance: that it was held to.
    """

    precision: str
    name: str
    value: float
    tolerance: float
    worst: str
    first: str | None
    first_value: float | None
    first_tolerance: float | None

    @property
    def passed(self) -> bool:
        """Whether nothing was beyond its tolerance."""
        return self.first is None


def compare(
    trace: Arrays,
    reference: Arrays,
    precisions: Sequence[str] = ("float64", "float32"),
    firm_steps: int = FIRM_STEPS,
) -> list[Rung]:
    """Return what is found on every rung, in the order of the ladder.

    Args:
        firm_steps: see `lockstep.workloads.contract.Workload`.
    """
    return list(_rungs(trace, reference, precisions, firm_steps))


def _rungs(
    trace: Arrays, reference: Arrays, precisions: Sequence[str], firm_steps: int
) -> Iterator[Rung]:
    for precision in precisions:
        firm = TOLERANCE[precision]
        yield _tensors(precision, "weights", trace, reference, 0.0)
        for rung in ("forward", "loss"):
            yield _tensors(precision, rung, trace, reference, firm)
        turning = precision == "float32" and firm_steps <= 1  # gradients decide the next loss
        moved = 0.0
        if turning:
            gradient, moved = _gradients(trace, reference)
            yield gradient
            twins = from_twins(trace, reference, "step")
            # Of the whole rung: chance decides in which layer a twin's unit turns.
            largest = max(map(tolerance_from_twin, (*twins.values(), moved)))
            yield _tensors(precision, "step", trace, reference, largest, twins)
        else:
            for rung in ("gradient", "step"):
                yield _tensors(precision, rung, trace, reference, firm)
        yield _checksums(precision, trace, reference)
        diverged = diverged_at(trace, reference, precision)
        nothing = [(f"nothing finite: both diverge at step {diverged}", 0.0, firm)]
        yield _losses(precision, trace, reference, firm_steps, diverged)
        if diverged is not None and diverged < len(per_step(reference, precision, "loss")):
            yield _judge(precision, "final", nothing, "tensors")
        elif precision == "float64":
            yield _tensors(precision, "final", trace, reference, firm)
        else:
            twins = from_twins(trace, reference, "final")
            yield _tensors(precision, "final", trace, reference, None, twins, moved)
        # In float32 a metric may jump by an example's share where logits are nearly equal.
        if precision == "float64" and diverged is not None:
            yield _judge(precision, "evaluation", nothing, "tensors")
        elif precision == "float64":
            yield _tensors(precision, "evaluation", trace, reference, firm)


def _tensors(
    precision: str,
    rung: str,
    trace: Arrays,
    reference: Arrays,
    tolerance: float | None,
    twins: Mapping[str, float] | None = None,
    moved: float = 0.0,
) -> Rung:
    """Judge a rung's tensors.

    Args:
        tolerance: of every tensor; None for its own, by its distance from its twins.
        twins: these distances, if a tolerance is made from them.
        moved: how far apart gradients are where units turn.
    """
    found: list[Item] = []
    for name in names(precision, rung, reference, trace):
        tensor = f"{precision}/{rung}/{name}"
        value = distance(trace.get(tensor), reference.get(tensor))
        twin = twins[name] if twins else 0.0
        own = max(map(tolerance_from_twin, (twin, moved))) if tolerance is None else tolerance
        found.append((name, value, own))
        if not math.isfinite(twin):
            found.append((f"{name} of a twin", math.inf, TOLERANCE[precision]))
    return _judge(precision, rung, found, "tensors")


def _gradients(trace: Arrays, reference: Arrays) -> tuple[Rung, float]:
    """Judge float32's gradients where units turn; returns how far apart they are at most, too.

    The tolerance is of the framework whose twins are closer: one that is less exact must not have
    a larger one for it.
    """
    found: list[Item] = []
    apart: dict[str, dict[str, float]] = {}
    twins: list[list[float]] = [[], []]
    for batch in batches(trace, reference):
        tensors = names("float32", batch, reference, trace)
        apart[batch] = {}
        for name in tensors:
            tensor = f"float32/{batch}/{name}"
            value = distance(trace.get(tensor), reference.get(tensor))
            apart[batch][name] = value
            if not math.isfinite(value):
                found.append((name, math.inf, TOLERANCE["float32"]))
        for own, side in zip(twins, (trace, reference)):
            seen = {name: from_twin(side, f"{batch}/{name}") for name in tensors}
            own.append(max(seen.values(), default=0.0))
            for name in (name for name, value in seen.items() if not math.isfinite(value)):
                found.append((f"{name} of a twin", math.inf, TOLERANCE["float32"]))
    largest = {batch: max(values.values(), default=math.inf) for batch, values in apart.items()}
    closest = min(largest, key=lambda batch: largest[batch])
    tolerance = tolerance_from_twin(min(float(np.median(own)) for own in twins))
    found = found or [(name, value, tolerance) for name, value in apart[closest].items()]
    moved = max((value for value in largest.values() if math.isfinite(value)), default=0.0)
    return _judge("float32", "gradient", found, "tensors"), moved


def _losses(
    precision: str, trace: Arrays, reference: Arrays, firm_steps: int, until: int | None
) -> Rung:
    """Judge the losses of the steps before `until`, or of all."""
    if not as_many_steps(trace, reference, precision):
        return _judge(precision, "steps", [], "steps")
    mine, theirs = (per_step(t, precision, "loss") for t in (trace, reference))
    values, firm = losses_apart(mine, theirs), TOLERANCE[precision]
    twins, tolerance = np.zeros(len(values)), np.full(len(values), firm)
    if precision == "float32":
        twins = losses_from_twins(trace, reference)
        tolerance = loss_envelope(trace, reference, firm_steps)
    found: list[Item] = []
    for k, (value, allowed) in enumerate(zip(values[:until], tolerance[:until])):
        allowed = allowed if math.isfinite(allowed) else firm
        found.append((f"step {k}", float(value), float(allowed)))
        if not math.isfinite(twins[k]):
            found.append((f"step {k} of a twin", math.inf, firm))
    return _judge(precision, "steps", found, "steps")


def _checksums(precision: str, trace: Arrays, reference: Arrays) -> Rung:
    mine, theirs = (per_step(t, precision, "checksum") for t in (trace, reference))
    if mine.shape != theirs.shape:
        return _judge(precision, "batches", [], "steps")
    apart = np.where(mine == theirs, 0.0, math.inf).tolist()
    return _judge(
        precision, "batches", [(f"step {k}", v, 0.0) for k, v in enumerate(apart)], "steps"
    )


def _judge(precision: str, rung: str, found: list[Item], kind: str) -> Rung:
    """Return what was found; of nothing that could be compared, that there is nothing."""
    found = found or [(f"number of {kind}", math.inf, 0.0)]
    beyond = [item for item in found if not (math.isfinite(item[1]) and item[1] <= item[2])]
    worst = max(found, key=lambda item: item[1] / max(item[2], 1e-300))
    first = beyond[0] if beyond else (None, None, None)
    return Rung(
        precision=precision,
        name=rung,
        value=worst[1],
        tolerance=worst[2],
        worst=worst[0],
        first=first[0],
        first_value=first[1],
        first_tolerance=first[2],
    )
