"""Whether two variants compute the same at a scale: the loss of their first step, seed by seed.

Parity is traced on one process. How a batch is split over devices, how losses and gradients are
summed and what a reduced precision does is not in the traces; but before any update, equal weights
and an equal batch give an equal loss, whatever the topology, as long as it is the same on both
sides. So every pair of runs of a comparison is checked on it, also between precisions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockstep.report.load import Record
from lockstep.report.run_facts import Facts

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "tf32": 2e-2, "bfloat16": 2e-2}
"""Relative, by the precision that a variant declares; of two, the coarser one's."""


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """How far the first losses of a comparison's pairs are apart.

    Attributes:
        pairs: that were compared.
        apart: how many of them are beyond the tolerance.
        largest: relative difference.
        seed, baseline, candidate: where it is largest, and the losses there.
        tolerance: relative.
    """

    pairs: int
    apart: int
    largest: float
    seed: int
    baseline: float
    candidate: float
    tolerance: float


def unknown(run: Record, facts: Facts) -> str | None:
    """Return why a run cannot be checked, None if it can, or if its input is its own."""
    if run.first_loss is not None or facts["variant.input"] != "shared":
        return None
    return f"the loss of its first step is not known (steps.npz: {run.steps_problem})"


def compare(
    a: Mapping[int, Record], b: Mapping[int, Record], facts: Mapping[int, tuple[Facts, Facts]]
) -> FirstStep | None:
    """Compare the first losses of two sides' runs; None if a side's input is its own.

    Args:
        facts: of baseline and candidate, by the seeds that are paired.
    """
    found = []
    for seed, sides in facts.items():
        losses = [runs[seed].first_loss for runs in (a, b)]
        if any(side["variant.input"] != "shared" for side in sides) or None in losses:
            continue
        mine, theirs = (float(loss) for loss in losses if loss is not None)
        tolerance = max(TOLERANCE[side["variant.precision"]] for side in sides)
        size = max(abs(mine), abs(theirs))
        distance = abs(mine - theirs) / size if size else 0.0
        found.append((distance, seed, mine, theirs, tolerance))
    if not found:
        return None
    # What is not a number is farther than any number.
    largest, seed, mine, theirs, tolerance = max(
        found, key=lambda item: item[0] if item[0] == item[0] else float("inf")
    )
    return FirstStep(
        pairs=len(found),
        apart=sum(not item[0] <= item[4] for item in found),
        largest=largest,
        seed=seed,
        baseline=mine,
        candidate=theirs,
        tolerance=tolerance,
    )


def problem(first: FirstStep | None, labels: Sequence[str]) -> str | None:
    """Return why parity is not proven at a scale, None if nothing speaks against it."""
    if first is None or not first.apart:
        return None
    return (
        f"from equal weights and an equal batch, the first step's loss of {labels[1]} is "
        f"{first.candidate:.6g} and that of {labels[0]} {first.baseline:.6g} (seed {first.seed}; "
        f"in {first.apart} of {first.pairs} pairs beyond {first.tolerance:g} relative)"
    )
