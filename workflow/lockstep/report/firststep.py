"""Whether two variants compute the same at a scale: losses of first steps, and batches, by seed.

The ladder is climbed on one device and, in float64 on CPUs, on two. How a batch is split over the
devices of a run, and how losses and gradients are summed there in the run's own precision, is not
in it; but from equal weights and equal batches the first losses are equal, whatever the topology,
as long as it is the same on both sides. The first one shows the forward pass alone; the later ones
show gradients and updates, within what rounding grows to in so many steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockstep.records.load import Record, Records
from lockstep.records.record_validation import FINISHED

FIRST = {"float64": 1e-9, "float32": 1e-4, "tf32": 2e-2, "bfloat16": 2e-2}
"""Relative tolerance of the first loss, by the precision that a variant declares."""
GROWTH = 10.0
"""How many times what the parity stage found a later loss may differ by: it climbed with one seed
on one device, in the precision of each variant (`curves` of the verdict)."""


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """How far the first losses of a comparison's pairs differ."""

    pairs: int  # that were compared
    differ: int  # how many of them differ beyond the tolerance at any step
    steps: int  # that were compared of each pair
    largest: float  # relative difference, of the step with the largest share of its tolerance
    step: int  # where that is, and the losses there
    seed: int
    baseline: float
    candidate: float
    tolerance: float  # relative, at that step


def fixed(settings: Mapping[str, Any]) -> bool:
    """Whether first losses follow from seed, weights and batches, as a variant is set.

    Where a framework draws the masks of dropout by itself, they do not.
    """
    return bool(settings["input"] == settings.get("randomness", "shared") == "shared")


def compare(
    pairs: Mapping[int, tuple[Record, Record]],
    precisions: Sequence[str],
    curves: Mapping[str, np.ndarray] | None = None,
) -> FirstStep:
    """Compare the first losses of pairs of runs, by seed, all of which are known.

    Args:
        precisions: that the two variants declare.
        curves: how far the parity stage lets each step's loss differ (`parity_verdict.curves`).
    """
    seeds = list(pairs)
    losses = [[np.asarray(run.first_losses) for run in pair] for pair in pairs.values()]
    count = min(len(loss) for pair in losses for loss in pair)
    one, two = np.stack([[loss[:count] for loss in pair] for pair in losses], axis=1)
    allowed = np.max([tolerances(precision, count, curves) for precision in precisions], 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.abs(one - two) / np.maximum(np.abs(one), np.abs(two))
    distance[(one == two) & np.isfinite(one)] = 0.0
    distance[~np.isfinite(distance)] = np.inf
    pair, step = np.unravel_index(np.argmax(distance / allowed), distance.shape)
    return FirstStep(
        pairs=len(seeds),
        differ=int((distance > allowed).any(axis=1).sum()),
        steps=count,
        largest=float(distance[pair, step]),
        step=int(step),
        seed=seeds[pair],
        baseline=float(one[pair, step]),
        candidate=float(two[pair, step]),
        tolerance=float(allowed[step]),
    )


def tolerances(precision: str, steps: int, curves: Mapping[str, np.ndarray] | None) -> np.ndarray:
    """Return the relative tolerance of each step's loss, ``(steps,)``.

    The fixed one of the first step, and for later ones `GROWTH` times what the parity stage lets
    a loss differ by, where that is more. Without such a curve later steps are not judged, but for
    float64, which needs none.
    """
    result = np.full(steps, FIRST[precision])
    if precision != "float64":
        name = {"float32": "float32_tolerance"}.get(precision, precision)
        curve = np.maximum.accumulate((curves or {}).get(name, np.array([np.inf])))
        reached = curve[np.minimum(np.arange(steps), len(curve) - 1)]
        result[1:] = np.maximum(result[1:], GROWTH * reached[1:])
    return result


def problem(first: FirstStep, labels: Sequence[str]) -> str | None:
    """Return why parity is not proven at a scale, None if nothing speaks against it."""
    if not first.differ:
        return None
    return (
        f"from equal weights and equal batches, the loss of step {first.step} of {labels[1]} is "
        f"{first.candidate:.6g} and that of {labels[0]} {first.baseline:.6g} (seed {first.seed}; "
        f"{first.differ} of {first.pairs} pairs of runs differ in their first {first.steps} losses "
        f"by more than rounding explains, which is {first.tolerance:.1g} there)"
    )


def unlike_batches(records: Records, workload: str, variant: str) -> str | None:
    """Return which runs of a seed did not read equal batches at all scales, None if all did.

    A fault in the shared input that hits both sides of a comparison in the same way shows only
    here.
    """
    first: dict[tuple[int, int], Record] = {}
    shared = records.study.variant(variant)["input"] == "shared"
    for scale in records.study.config["scales"] if shared else ():
        for run in records.by_side[workload, variant, scale].values():
            if run.status != FINISHED:
                continue
            other = first.setdefault((run.seed, run.summary["steps"]), run)
            if run.summary["batches"] != other.summary["batches"]:
                return (
                    f"{variant} did not read the same batches at every scale: those of seed "
                    f"{run.seed} differ between {other.scale} and {run.scale}"
                )
    return None
