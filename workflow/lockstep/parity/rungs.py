"""Compares two traces rung by rung, and says which tensor differs first and by how much.

Tensors are compared by the relative L2 norm of their difference, with a floor below which a
reference tensor counts as zero: element-wise differences of gradients are orders of magnitude
larger than norm-wise ones and say nothing.

Float64 is the sharp gate. In float32 a unit whose input is within rounding of zero opens in one
framework and stays shut in the other, and in a residual network that moves a gradient by a
thousandth. It is chance in which batch one turns, and whether a framework's own twin sees it; what
is computed less exactly is so in each batch. So where a workload says that units turn
(`Workload.firm_steps`), the float32 gradient is compared on several batches: of each tensor the one
counts where the frameworks are closest, and its tolerance is made from the median of its twins; on
none of them may half of a gradient differ. What follows from gradients, which is what a state has
changed by, may be ten times as far apart as gradients were on any of them.

What cannot be measured fails: a tensor that only one trace has, a rung without any, and a number
that is not finite, be it a framework's or its twin's. One thing alone is not held against them:
that both losses stop being finite at the same step, not the first. Then nothing is left after it.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lockstep.parity import EDGES, OVER_TWO, SWAPPED, UNDISTURBED, own, update
from lockstep.parity.distances import (
    TOLERANCE,
    Arrays,
    Item,
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
from lockstep.parity.rung import Rung, judge
from lockstep.workloads import taps

TURNING = 1e-4  # of what passes through many layers in float32: logits of ResNet-50 are 5e-5 apart
HALF = 0.5  # of a gradient: no unit that turns moves it by so much
LENGTH = "a step of another length"
JUMPS = 5.0  # examples whose largest logits may swap in float32, beyond what a twin's do
FIRM_STEPS = 10  # float32 steps held to the fixed tolerance alone, unless the workload says fewer


def compare(
    trace: Arrays,
    reference: Arrays,
    precisions: Sequence[str] | None = None,
    firm_steps: int = FIRM_STEPS,
    rule: update.Rule | None = None,
) -> list[Rung]:
    """Return what is found on every rung, in the order of the ladder.

    Args:
        precisions: all that are to be compared; None for those of every trace, and of two
            devices and of a reduced precision where one of them climbed so.
        firm_steps: see `lockstep.workloads.contract.Workload`.
        rule: of the optimizer, by which a step is made again; None leaves that rung out.
    """
    if precisions is None:
        climbed = {key.split("/")[0] for trace in (trace, reference) for key in trace}
        several, reduced = climbed & {OVER_TWO}, climbed & own.BOUNDS.keys()
        precisions = ("float64", *several, "float32", *sorted(reduced))
    return list(_rungs(trace, reference, precisions, firm_steps, rule))


def _rungs(
    trace: Arrays,
    reference: Arrays,
    precisions: Sequence[str],
    firm_steps: int,
    rule: update.Rule | None,
) -> Iterator[Rung]:
    for precision in precisions:
        if precision in own.BOUNDS:
            for rung, found in own.compared(precision, trace, reference, rule):
                yield judge(precision, rung, found, "tensors")
            continue
        exact, firm = precision != "float32", TOLERANCE[precision]
        yield _tensors(precision, "weights", trace, reference, 0.0)
        yield _checksums(precision, trace, reference)
        if any(names(precision, "random", t) for t in (trace, reference)):
            yield _tensors(precision, "random", trace, reference, 0.0)
        turning = not exact and firm_steps <= 1  # gradients decide the next loss
        if names(precision, "layers", trace) and names(precision, "layers", reference):
            yield _layers(precision, trace, reference)
        yield _tensors(precision, "forward", trace, reference, TURNING if turning else firm)
        yield _tensors(precision, "loss", trace, reference, firm)
        moved = 0.0
        if turning:
            gradient, moved = _gradients(trace, reference)
            yield gradient
            yield _states("step", trace, reference, moved)
        else:
            yield _tensors(precision, "gradient", trace, reference, firm)
            if exact and any(names(precision, "input", t) for t in (trace, reference)):
                yield _tensors(precision, "input", trace, reference, firm)
            if exact:
                yield _tensors(precision, "step", trace, reference, firm)
            else:
                yield _states("step", trace, reference, moved)
        if rule is not None:
            yield judge(
                precision,
                "update",
                update.compared(precision, trace, reference, rule, closest=turning),
                "tensors",
            )
        diverged = diverged_at(trace, reference, precision)
        nothing = [(f"nothing finite: both diverge at step {diverged}", 0.0, firm)]
        yield _losses(precision, trace, reference, firm_steps, diverged)
        if diverged is not None and diverged < len(per_step(reference, precision, "loss")):
            yield judge(precision, "final", nothing, "tensors")
        elif exact:
            yield _tensors(precision, "final", trace, reference, firm)
        else:
            yield _states("final", trace, reference, moved)
        for rung in ("edge", "evaluation", "after") if exact else ("evaluation",):
            if diverged is not None:
                yield judge(precision, rung, nothing, "tensors")
            elif exact:
                yield _tensors(precision, rung, trace, reference, firm)
            else:
                yield _evaluation(trace, reference, turning)
        yield _tensors(precision, "restored", trace, reference, 0.0, "prepared")
        if exact:
            yield _tensors(precision, "general", trace, reference, firm)
        if precision != OVER_TWO:
            yield _canary(precision, trace, reference)


def _layers(precision: str, trace: Arrays, reference: Arrays) -> Rung:
    """Judge what the layers give, in the order of the network, where both have them.

    In float32 each is held to ten times the distance of the more exact framework's twin: what a
    layer rounds to fewer bits is seen there, before it drowns in what later layers add.
    """
    found = []
    for name, value, twin in layers(precision, trace, reference):
        firm = TOLERANCE[precision]
        found.append((name, value, firm if twin is None else tolerance_from_twin(twin)))
    return judge(precision, "layers", found, "layers")


def layers(
    precision: str, trace: Arrays, reference: Arrays
) -> Iterator[tuple[str, float, float | None]]:
    """Yield each layer's name and distance, and in float32 that of the closer twin."""
    ours = names(precision, "layers", trace)
    for name in names(precision, "layers", reference):
        if name in ours:
            tensor = f"layers/{name}"
            value = distance(*(t.get(f"{precision}/{tensor}") for t in (trace, reference)))
            twins = [from_twin(t, tensor) for t in (trace, reference)]
            yield name, value, min(twins) if precision == "float32" else None


def _evaluation(trace: Arrays, reference: Arrays, turning: bool) -> Rung:
    """Judge float32's evaluation, by its twins; a metric may jump by some examples' shares."""
    found = []
    count = max(1.0, float(np.max(reference.get("float32/evaluation/examples", 1.0))))
    for name, twin in from_twins(trace, reference, "evaluation").items():
        tensor = f"float32/evaluation/{name}"
        theirs = reference.get(tensor)
        allowed = tolerance_from_twin(twin)
        if name in ("examples", "weight"):
            allowed = 0.0
        elif name != "loss" and theirs is not None:
            allowed = max(allowed, JUMPS / count / max(float(theirs), 1 / count))
        found.append((name, distance(trace.get(tensor), theirs), allowed))
    tensor = "float32/general/evaluation loss"  # its twin is itself
    pair = [side.get(tensor) for side in (trace, reference)]
    if any(loss is not None for loss in pair):
        firm = TURNING if turning else TOLERANCE["float32"]
        found.append(("loss in general position", distance(*pair), firm))
    return judge("float32", "evaluation", found, "tensors")


def _canary(precision: str, trace: Arrays, reference: Arrays) -> Rung:
    """Judge whether checksums are those of what each model read, as `canary` disturbs it."""
    found: list[Item] = []
    told = ("checksum", "expected", "loss")
    sides = [
        {what: _told(precision, f"canary/{what}", side) for what in told}
        for side in (trace, reference)
    ]
    kinds = list(sides[1]["loss"])
    if len(kinds) < 3 or any(list(side[what]) != kinds for side in sides for what in told):
        return judge(precision, "canary", [], "disturbances")
    for which in kinds:
        for side in sides:
            wrong = _equal(side["checksum"][which], side["expected"][which])
            found.append((f"checksum with {which}", wrong, 0.0))
            if which not in (UNDISTURBED, SWAPPED) and precision != "float32":
                same = side["loss"][which] == side["loss"][UNDISTURBED]
                found.append((f"loss with {which}", math.inf if same else 0.0, 0.0))
        ours, theirs = (np.atleast_1d(side["loss"][which]) for side in sides)
        loss = float(losses_apart(ours, theirs)[0])
        found.append((f"loss with {which}", loss, max(TOLERANCE[precision], 1e-11)))
    return judge(precision, "canary", found, "disturbances")


def _told(precision: str, rung: str, side: Arrays) -> dict[str, np.ndarray]:
    return {name: side[f"{precision}/{rung}/{name}"] for name in names(precision, rung, side)}


def _equal(a: np.integer | np.ndarray, b: np.integer | np.ndarray) -> float:
    return 0.0 if a == b else math.inf


def _tensors(
    precision: str, rung: str, trace: Arrays, reference: Arrays, tolerance: float, *more: str
) -> Rung:
    """Judge a rung's tensors, all held to one tolerance.

    Args:
        more: names of what a trace holds besides and is judged with it.
    """
    found: list[Item] = []
    for part in (rung, *more):
        known = names(precision, part, reference, trace)
        for name in known:
            pair = (side.get(f"{precision}/{part}/{name}") for side in (trace, reference))
            shown = name if part == rung else f"{part}/{name}"
            found.append((shown, distance(*pair, name=name), tolerance))
        if more and not known:
            found.append(("number of tensors", math.inf, tolerance))
    return judge(precision, rung, found, "tensors")


def _states(rung: str, trace: Arrays, reference: Arrays, moved: float) -> Rung:
    """Judge float32's state after some steps: each tensor by its twins, and by its gradients.

    Args:
        moved: how far apart gradients are where units turn, else 0. What a tensor has changed by
            comes of them, but for buffers after one step, which come of the forward pass. (Where
            none turn a gradient near zero still decides what Adam, which divides by its size,
            changes an element by: `update` holds that to the gradient.)
    """
    twins, found = from_twins(trace, reference, rung), list[Item]()
    for name, twin in twins.items():
        tensor = f"float32/{rung}/{name}"
        theirs = reference.get(tensor)
        value = distance(trace.get(tensor), theirs, name=name)
        before = reference.get(f"float32/weights/{name}")
        if rung == "final" and before is not None:
            before = taps.sample(before)
        changed = distance(before, theirs, name=name)
        if rung == "step" and name.startswith("buffer/"):
            allowed = TURNING if moved else TOLERANCE["float32"]
        else:
            allowed = max(map(tolerance_from_twin, (twin, moved * changed)))
        found.append((name, value, allowed))
        if not math.isfinite(twin):
            found.append((f"{name} of a twin", math.inf, TOLERANCE["float32"]))
    return judge("float32", rung, found, "tensors")


def _gradients(trace: Arrays, reference: Arrays) -> tuple[Rung, float]:
    """Judge float32's gradients where units turn; returns how far apart they are at most, too.

    The tolerance is of the framework whose twins are closer: one that is less exact must not have
    a larger one for it.
    """
    rungs, moved = batches(trace, reference), 0.0
    found: list[Item] = []
    for name in dict.fromkeys(
        n for rung in rungs for n in names("float32", rung, reference, trace)
    ):
        tensors = [f"{rung}/{name}" for rung in rungs]
        apart = [distance(*(t.get(f"float32/{n}") for t in (trace, reference))) for n in tensors]
        twins = [[from_twin(side, n) for n in tensors] for side in (trace, reference)]
        allowed = max(TURNING, tolerance_from_twin(min(map(np.median, twins))))
        found.append((name, min(apart), allowed))
        found.append((name, max(apart), HALF))
        if not np.isfinite(twins).all():
            found.append((f"{name} of a twin", math.inf, TOLERANCE["float32"]))
        moved = max([moved, *filter(math.isfinite, apart)])
    return judge("float32", "gradient", found, "tensors"), moved


def _losses(
    precision: str, trace: Arrays, reference: Arrays, firm_steps: int, until: int | None
) -> Rung:
    """Judge the losses of the steps before `until`, or of all."""
    if not as_many_steps(trace, reference, precision):
        return judge(precision, "steps", [], "steps")
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
    return judge(precision, "steps", found, "steps")


def _checksums(precision: str, trace: Arrays, reference: Arrays) -> Rung:
    """Judge the checksums of all batches whose losses are told: the first one, steps, edges."""
    found: list[Item] = []
    for key, losses, named in (
        ("batch/checksum", "loss/loss", lambda k: "the first batch"),
        ("steps/checksum", "steps/loss", lambda k: f"step {k}"),
        (
            "edges/checksum",
            f"edge/loss of {EDGES[0]}",
            lambda k: (*EDGES, LENGTH)[min(k, len(EDGES))],
        ),
    ):
        mine, theirs = (np.atleast_1d(t.get(f"{precision}/{key}", [])) for t in (trace, reference))
        told = any(f"{precision}/{losses}" in t for t in (trace, reference))
        if mine.shape != theirs.shape or (told and not len(mine)):
            found.append((f"number of {key}", math.inf, 0.0))
            continue
        found += [(named(k), _equal(a, b), 0.0) for k, (a, b) in enumerate(zip(mine, theirs))]
    return judge(precision, "batches", found, "steps")
