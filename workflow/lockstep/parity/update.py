"""An optimizer's step by NumPy, from a trace's own gradient: what the framework should have made.

Where units turn, two sound frameworks' gradients differ by a thousandth in float32, and a state may
differ as much. But a step from equal weights and an equal gradient is a few operations an element,
which both make to within rounding: what rounds a gradient or a slot to fewer bits, or leaves a term
out, is orders of magnitude away.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockstep.parity import STEPS_FROM_GENERAL
from lockstep.parity.distances import Arrays, Item, distance, names
from lockstep.workloads import optimizers, taps
from lockstep.workloads.contract import Workload

State = Mapping[str, np.ndarray]
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23}
ROUNDINGS = 8.0  # of a few operations, each by half an `EPSILON`, and of a fused one left unfused
AGAIN = {"float64": 1e-11, "float32": 2e-5}
"""By how much two computations of one gradient may differ on a GPU, where sums have no fixed order
and the step's program may choose other kernels than the one that gave the gradient."""
TURNED = 1e-3  # the same where a unit may open in one of them alone


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a step changes a state.

    Attributes:
        optimizer: of the recipe.
        shares: of each trained parameter (`lockstep.workloads.optimizers`).
        repeatable: whether a gradient that is computed twice has equal bits, as on a CPU.
    """

    optimizer: Mapping[str, Any]
    shares: Mapping[str, optimizers.Share]
    repeatable: bool = True

    @classmethod
    def of(cls, workload: Workload, recipe: Mapping[str, Any]) -> "Rule":
        """Return a recipe's rule."""
        settings = recipe["optimizer"]
        trained = workload.trained(recipe["model"])
        return cls(
            optimizer=settings, shares={p.name: optimizers.share(settings, p) for p in trained}
        )


def compared(
    precision: str, trace: Arrays, reference: Arrays, rule: Rule, *, closest: bool = False
) -> list[Item]:
    """Return how far each side's steps are from those made again: the first, two from `general`.

    Args:
        closest: of the two from `general` let the one count that is closer, where a unit within
            rounding of zero may open in the step's program and not in that which gave the
            gradient. They alone start from momentum, without which what rounds it shows nowhere.
    """
    kind = "float64" if precision.startswith("float64") else "float32"
    again = 0.0 if rule.repeatable else TURNED if closest else AGAIN[kind]
    found = []
    for trace_of, side in (("", trace), (" of the reference", reference)):
        first = side.get(f"{precision}/rate/first", np.nan)
        peak = rule.optimizer["learning_rate"]
        starts = ("weights", "restored", "general")
        ends = (("step", "gradient"), *((r, f"{r}/gradient") for r in STEPS_FROM_GENERAL))
        # The steps are the first one, and the first two from a state in general position.
        plan = zip(starts, ends, (first, peak, peak), (0, 0, 1))
        steps = [
            _items(side, precision, before, gradient, after, rule, float(rate), step)
            for before, (after, gradient), rate, step in plan
        ]
        for name in {name: None for items in steps for name in items}:
            made = [items[name] for items in steps if name in items]
            if closest and len(made) > 1:
                made = [min(made[1:], key=_share)]
            value, allowed = max(made, key=_share)
            found.append((f"{name}{trace_of}", value, max(allowed, again)))
    return found


def _share(item: tuple[float, float]) -> float:
    return item[0] / item[1]


def _items(
    side: Arrays,
    precision: str,
    before: str,
    gradient: str,
    after: str,
    rule: Rule,
    rate: float,
    step: int,
) -> dict[str, tuple[float, float]]:
    """Return the distance and the tolerance of each tensor after one step."""

    def state(rung: str) -> dict[str, np.ndarray]:
        return {name: side[f"{precision}/{rung}/{name}"] for name in names(precision, rung, side)}

    epsilon = EPSILON["float64" if precision.startswith("float64") else "float32"]
    start, actual, found = state(before), state(after), {}
    if not actual:
        return {}
    numbers = {"learning_rate": rate, **optimizers.scalars(rule.optimizer, step)}
    gradients, told = state(gradient), side.get(f"{precision}/{after}/norm")
    norm = optimizers.global_norm(gradients) if told is None else float(told)
    for name, expected, change in stepped(start, gradients, rule, numbers, norm):
        size = float(np.linalg.norm(change))
        value = distance(actual.get(name), expected, name=name)
        # What a parameter has changed by is less than what it is: so many of its digits are gone.
        scale = float(np.linalg.norm(expected)) / size if size else 0.0
        found[name] = (value * scale, ROUNDINGS * epsilon * max(scale, 1.0))
    return found


def stepped(
    before: State, gradients: State, rule: Rule, numbers: Mapping[str, float], norm: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each tensor after a step, by its name with its role.

    Args:
        before: ``param/NAME`` and ``SLOT/NAME``.
        gradients: by name; one that has no state before is left out.
        numbers: of the step.
        norm: of all gradients, of which some may be samples here.

    Yields:
        Name, value, and how much of it the step has changed, all in float64.
    """
    factor = optimizers.clip_factor(rule.optimizer, norm)
    for name, gradient in gradients.items():
        if name not in rule.shares or f"param/{name}" not in before:
            continue
        value = before[f"param/{name}"].astype(np.float64)
        shape = value.shape
        share, gradient = rule.shares[name], factor * gradient.astype(np.float64)
        slots = optimizers.slots(rule.optimizer, share.group)
        kept = {slot: before[f"{slot}/{name}"] for slot in slots}
        if optimizers.ROW_SQUARES in kept and value.ndim == 1:  # as `taps.sample` keeps it
            if value.size == taps.SAMPLE:
                continue  # some elements of a row do not tell its mean square
            rows = len(kept[optimizers.ROW_SQUARES])
            value, gradient = value.reshape(rows, -1), gradient.reshape(rows, -1)
        after, change = optimizers.stepped(rule.optimizer, share, numbers, value, gradient, kept)
        for slot, array in after.items():
            yield f"{slot}/{name}", array, array
        own = optimizers.of_group(rule.optimizer, share.group)["name"]
        if own == "lamb" and shape == (taps.SAMPLE,):
            continue  # some elements of a tensor do not tell its norm
        yield f"param/{name}", (value + change).reshape(shape), change
