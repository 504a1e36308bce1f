"""A variant's own precision, where it is a reduced one: near to float32, and not equal to it.

Two frameworks round at other places, so that only bounds can be told: how far a reduced precision
may move what float32 computes, and how far it must, or it was not in force. What is exact in
float32 stays so: weights, batches, a state that is given back, and a step from a gradient.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.parity import update
from lockstep.parity.distances import Arrays, Item, distance, losses_apart, names, per_step


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Relative distances from float32.

    Attributes:
        least: of logits and of the whole gradient.
        logits, gradient, loss, later_loss: at most; `loss` of the first batch.
        tensor: at most, of one tensor's gradient (or of a hundredth of the whole, if that is more).
    """

    least: float
    logits: float
    gradient: float
    loss: float
    later_loss: float
    tensor: float


PARTS = {"batches": ("batch", "steps"), "restored": ("restored", "prepared")}
HIDDEN = 0.1  # of what logits differ by at least, a mean loss
SMALL = 0.01  # share of the whole gradient that one tensor's counts as, at least

BOUNDS = {
    "bfloat16": Bounds(
        least=1e-4, logits=0.05, gradient=0.25, loss=0.02, later_loss=0.25, tensor=0.75
    ),
    "tf32": Bounds(least=1e-6, logits=5e-3, gradient=0.05, loss=2e-3, later_loss=0.05, tensor=0.75),
}
"""A number has 8 significant bits in bfloat16, 11 in TF32, 24 in float32. A small network on a CPU
is at 4e-3 (logits) and 4e-2 (gradient) in bfloat16, one tensor's gradient at up to 0.18. A tensor
without a gradient is at 1."""


def compared(
    precision: str, trace: Arrays, reference: Arrays, rule: update.Rule | None
) -> Iterator[tuple[str, list[Item]]]:
    """Yield each rung's name and what was found, of each side that climbed in this precision."""
    sides = {
        named: side
        for named, side in (("", trace), (" of the reference", reference))
        if any(key.startswith(f"{precision}/") for key in side)
    }
    bounds = BOUNDS[precision]
    for rung in ("weights", "batches", "restored"):
        found: list[Item] = []
        for named, side in sides.items():
            keys = PARTS.get(rung, (rung,))
            for key in keys:
                for name in names(precision, key, side):
                    if rung == "batches" and name != "checksum":
                        continue
                    pair = [side.get(f"{p}/{key}/{name}") for p in (precision, "float32")]
                    found.append((f"{key}/{name}{named}", _exactly(*pair), 0.0))
        yield rung, found
    for rung, what, most in (
        ("forward", "logits", bounds.logits),
        ("gradient", "whole gradient", bounds.gradient),
    ):
        found = [
            _within(f"{what}{named}", _apart(precision, rung, side), bounds.least, most)
            for named, side in sides.items()
        ]
        if rung == "gradient":
            for named, side in sides.items():
                found += [(f"{n}{named}", v, bounds.tensor) for n, v in _each(precision, side)]
        yield rung, found
    yield (
        "loss",
        [
            (f"loss{named}", distance(*_pair(precision, "loss/loss", side)), bounds.loss)
            for named, side in sides.items()
        ],
    )
    if rule is not None:
        climbed = [sides.get(""), sides.get(" of the reference")]
        found = update.compared(precision, climbed[0] or {}, climbed[1] or {}, rule, closest=True)
        yield "update", found
    yield (
        "steps",
        [
            (f"step {k}{named}", float(value), bounds.later_loss)
            for named, side in sides.items()
            for k, value in enumerate(curve(precision, side))
        ],
    )
    found = []
    for named, side in sides.items():
        for name in ("examples", "weight"):
            pair = _pair(precision, f"evaluation/{name}", side)
            found.append((f"{name}{named}", _exactly(*pair), 0.0))
        loss = distance(*_pair(precision, "evaluation/loss", side))
        found.append((f"loss{named}", loss, bounds.later_loss))
        # From one state, where trained ones have parted; its mean may hide most of what is rounded.
        loss = distance(*_pair(precision, "general/evaluation loss", side))
        what = f"loss in general position{named}"
        found.append(_within(what, loss, HIDDEN * bounds.least, bounds.later_loss))
    yield "evaluation", found


def curve(precision: str, side: Arrays) -> np.ndarray:
    """Return how far every step's loss is from that in float32, ``(steps,)``; empty if unknown."""
    mine, theirs = (per_step(side, p, "loss") for p in (precision, "float32"))
    return losses_apart(mine, theirs) if mine.shape == theirs.shape else np.empty(0)


def _pair(precision: str, key: str, side: Arrays) -> list[np.ndarray | None]:
    return [side.get(f"{p}/{key}") for p in (precision, "float32")]


def _apart(precision: str, rung: str, side: Arrays) -> float:
    """Return the distance of all of a rung's tensors together from those in float32."""
    pairs = [_pair(precision, f"{rung}/{name}", side) for name in names(precision, rung, side)]
    if not pairs or any(a is None or b is None or a.shape != b.shape for a, b in pairs):
        return math.inf
    whole = [np.concatenate([np.ravel(pair[k]) for pair in pairs]) for k in (0, 1)]  # type: ignore[arg-type]
    return distance(*whole)


def _each(precision: str, side: Arrays) -> Iterator[tuple[str, float]]:
    """Yield each tensor's gradient's distance from that in float32; of a small one's, a share.

    One that is a hundredth of the whole, or less, may be rounding alone.
    """
    pairs = {
        name: _pair(precision, f"gradient/{name}", side)
        for name in names(precision, "gradient", side)
    }
    whole = np.sqrt(sum(_square(exact) for _, exact in pairs.values()))
    for name, (reduced, exact) in pairs.items():
        own = np.sqrt(_square(exact))
        yield name, distance(reduced, exact) * min(1.0, own / max(SMALL * whole, 1e-300))


def _square(array: np.ndarray | None) -> float:
    return 0.0 if array is None else float(np.sum(np.square(array.astype(np.float64))))


def _within(name: str, value: float, least: float, most: float) -> Item:
    if value < least:
        return (f"{name} (as in float32: the precision is not in force)", math.inf, most)
    return (name, value, most)


def _exactly(a: np.ndarray | None, b: np.ndarray | None) -> float:
    if a is None or b is None or a.shape != b.shape:
        return math.inf
    return 0.0 if np.array_equal(a, b) else math.inf
