"""How far apart two traces are, and how far each is from its own twin.

What is not finite, or not there, is infinitely far away: no tolerance is ever made from it.
"""

from collections.abc import Mapping

import numpy as np

from lockstep.parity import OVER_TWO
from lockstep.workloads.optimizers import NOT_NEGATIVE

TOLERANCE = {"float64": 1e-11, OVER_TWO: 1e-11, "float32": 1e-5}
ENVELOPE = 10.0  # how many times its own twin's distance the other framework may be away
FLOOR = 1e-6  # root mean square of a tensor, or size of a loss, that counts as zero
FLOORS = dict.fromkeys(NOT_NEGATIVE, 1e-12)
"""The same of a slot that is made of squares: most are below 1e-6, and a step divides by their
roots."""
HUGE = 1e100  # its square is still finite

Arrays = Mapping[str, np.ndarray]
Item = tuple[str, float, float]
"""A tensor's (or step's) name, its distance and its tolerance."""


def distance(a: np.ndarray | None, b: np.ndarray | None, *, name: str = "") -> float:
    """Return the relative L2 distance of `a` from the reference `b`.

    Infinity if one of them is missing, has another shape or is not finite.

    Args:
        name: of the tensor, whose role decides the floor.
    """
    if a is None or b is None or a.shape != b.shape:
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    largest = max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
    if HUGE < largest < np.inf:  # a model that is about to diverge: its squares overflow
        a, b = a / largest, b / largest
    floor = next((own for role, own in FLOORS.items() if f"/{role}/" in f"/{name}"), FLOOR)
    reference = max(float(np.linalg.norm(b)), floor * np.sqrt(max(1, b.size)))
    with np.errstate(invalid="ignore", over="ignore"):
        value = float(np.linalg.norm(a - b)) / reference
    return value if np.isfinite(value) else float("inf")


def losses_apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return each loss's relative distance from the reference `b`; infinity if not finite.

    Args:
        a, b: losses of as many steps, ``(steps,)``.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        values = np.abs(a - b) / np.maximum(np.abs(b), FLOOR)
    return np.where(np.isfinite(values), values, np.inf)


def names(precision: str, rung: str, *traces: Arrays) -> list[str]:
    """Return the names of a rung's tensors in any of the traces, those of the first one first."""
    prefix = f"{precision}/{rung}/"
    found = [
        key.removeprefix(prefix) for trace in traces for key in trace if key.startswith(prefix)
    ]
    return list(dict.fromkeys(found))


def per_step(trace: Arrays, precision: str, what: str) -> np.ndarray:
    """Return what a trace tells of every step, `loss` or `checksum`; nothing if it does not."""
    return np.atleast_1d(trace.get(f"{precision}/steps/{what}", np.empty(0)))


def diverged_at(trace: Arrays, reference: Arrays, precision: str) -> int | None:
    """Return the step at which both losses stop being finite; None unless they do so together.

    The evaluation counts as the loss after the last step.

    A recipe under which a model diverges does so in both frameworks. That is a result of its runs
    and no difference between them; what comes before is compared.
    """
    ends = []
    for side in (trace, reference):
        after = np.atleast_1d(side.get(f"{precision}/evaluation/loss", np.empty(0)))[:1]
        losses = np.concatenate([per_step(side, precision, "loss"), after])
        (wrong,) = np.nonzero(~np.isfinite(losses))
        ends.append(int(wrong[0]) if len(wrong) else None)
    return ends[0] if ends[0] == ends[1] and ends[0] else None


# Twins: the same framework, from weights moved by a few units in the last place -----------------


def from_twins(trace: Arrays, reference: Arrays, rung: str) -> dict[str, float]:
    """Return, by tensor of a rung, the larger of both frameworks' distances from their twins."""
    return {
        name: max(from_twin(t, f"{rung}/{name}") for t in (trace, reference))
        for name in names("float32", rung, reference, trace)
    }


def from_twin(trace: Arrays, tensor: str) -> float:
    """Return how far a tensor of a trace is from its twin's; infinity if one of them lacks it."""
    return distance(trace.get(f"twin/{tensor}"), trace.get(f"float32/{tensor}"), name=tensor)


def batches(*traces: Arrays) -> list[str]:
    """Return the rungs of all batches whose float32 gradients are told, that of the first first."""
    further = {
        int(key.split("/")[2]) for t in traces for key in t if key.startswith("float32/gradients/")
    }
    return ["gradient", *(f"gradients/{k}" for k in sorted(further))]


def tolerance_from_twin(apart: float) -> float:
    """Return the float32 tolerance of a tensor that is so far from its twin."""
    firm = TOLERANCE["float32"]
    return max(firm, ENVELOPE * apart) if np.isfinite(apart) else firm


def losses_from_twins(trace: Arrays, reference: Arrays) -> np.ndarray:
    """Return the same for every step's loss, ``(steps,)``."""
    ours, theirs = (
        losses_apart(per_step(t, "twin", "loss"), per_step(t, "float32", "loss"))
        for t in (trace, reference)
    )
    return np.maximum(ours, theirs)


def loss_envelope(trace: Arrays, reference: Arrays, firm_steps: int) -> np.ndarray:
    """Return the float32 tolerance of every step's loss, ``(steps,)``.

    The fixed tolerance for the first steps; then also ten times the largest distance of either
    framework from its own twin, at whichever step: chance decides who parts first.
    """
    twins = losses_from_twins(trace, reference)
    envelope = np.full(len(twins), ENVELOPE * twins[np.isfinite(twins)].max(initial=0.0))
    envelope[:firm_steps] = 0.0
    return np.maximum(envelope, TOLERANCE["float32"])


def as_many_steps(trace: Arrays, reference: Arrays, precision: str) -> bool:
    """Whether both traces have a loss of the same steps, and of float32 their twins, too."""
    precisions = ("float32", "twin") if precision == "float32" else (precision,)
    shapes = {per_step(t, p, "loss").shape for p in precisions for t in (trace, reference)}
    return len(shapes) == 1
