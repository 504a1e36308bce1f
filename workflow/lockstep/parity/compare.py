"""Compares two traces rung by rung, and says which tensor differs first and by how much.

Tensors are compared by the relative L2 norm of their difference, with a floor below which a
reference tensor counts as zero: element-wise differences of gradients are orders of magnitude
larger than norm-wise ones and say nothing.

Float64 is the sharp gate. In float32 a unit whose input is within rounding of zero opens in one
framework and stays shut in the other, and in a residual network that moves a gradient by a
thousandth: as much as it moves a framework's own twin, which is what the tolerance is made from.
Such a workload says so (`Workload.firm_steps`), and its traces with it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files
from lockstep.errors import UserError

SCHEMA = "lockstep-parity/1"
TOLERANCE = {"float64": 1e-11, "float32": 1e-5}
ENVELOPE = 10.0  # how many times its own twin's distance the other framework may be away
FIRM_STEPS = 10  # float32 steps held to the fixed tolerance alone, unless the workload says fewer
FLOOR = 1e-6  # root mean square of a tensor that counts as zero

Arrays = Mapping[str, np.ndarray]


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
    """

    precision: str
    name: str
    value: float
    tolerance: float
    worst: str
    first: str | None
    first_value: float | None

    @property
    def passed(self) -> bool:
        """Whether nothing was beyond its tolerance."""
        return self.first is None


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the relative L2 distance of `a` from the reference `b`; infinity if not finite."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    reference = max(float(np.linalg.norm(b)), FLOOR * np.sqrt(max(1, b.size)))
    value = float(np.linalg.norm(a - b)) / reference
    return value if np.isfinite(value) else float("inf")


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
        for rung in ("gradient", "step"):
            # They decide the second step's loss.
            fixed = precision == "float64" or firm_steps > 1
            allowed = firm if fixed else _largest_twin(trace, reference, rung)
            yield _tensors(precision, rung, trace, reference, allowed)
        yield _checksums(precision, trace, reference)
        if precision == "float64":
            yield _losses(precision, trace, reference, np.full(len(_loss(trace, precision)), firm))
            yield _tensors(precision, "final", trace, reference, firm)
            # In float32 a metric may jump by an example's share where logits are nearly equal.
            yield _tensors(precision, "evaluation", trace, reference, firm)
        else:
            envelope = loss_envelope(trace, reference, firm_steps)
            yield _losses(precision, trace, reference, envelope)
            yield _tensors(precision, "final", trace, reference, None)


def loss_envelope(trace: Arrays, reference: Arrays, firm_steps: int) -> np.ndarray:
    """Return the float32 tolerance of every step's loss, ``(steps,)``.

    The fixed tolerance for the first steps; then also ten times the largest distance so far of
    either framework from its own twin.
    """
    distances = [
        np.abs(_loss(t, "twin") - _loss(t, "float32")) / np.abs(_loss(t, "float32"))
        for t in (trace, reference)
    ]
    envelope = ENVELOPE * np.maximum.accumulate(np.maximum(*distances))
    envelope[:firm_steps] = 0.0
    return np.maximum(envelope, TOLERANCE["float32"])


def _twins(trace: Arrays, reference: Arrays, tensor: str) -> float:
    """Return the float32 tolerance of a tensor, by either framework's distance from its twin."""
    distances = (distance(t[f"twin/{tensor}"], t[f"float32/{tensor}"]) for t in (trace, reference))
    return max(TOLERANCE["float32"], ENVELOPE * max(distances))


def _largest_twin(trace: Arrays, reference: Arrays, rung: str) -> float:
    """Return the same for a whole rung: chance decides in which layer a twin's unit turns."""
    prefix = f"float32/{rung}/"
    names = [key.removeprefix("float32/") for key in reference if key.startswith(prefix)]
    found = (_twins(trace, reference, name) for name in names if f"float32/{name}" in trace)
    return max(found, default=TOLERANCE["float32"])


def _loss(trace: Arrays, precision: str) -> np.ndarray:
    return trace[f"{precision}/steps/loss"]


def _tensors(
    precision: str, rung: str, trace: Arrays, reference: Arrays, tolerance: float | None
) -> Rung:
    """Judge a rung's tensors; without a tolerance each is held to its twins' distance."""
    prefix = f"{precision}/{rung}/"
    names = [key.removeprefix(prefix) for key in reference if key.startswith(prefix)]
    found = []
    for name in names:
        mine = trace.get(prefix + name)
        value = distance(mine, reference[prefix + name]) if mine is not None else float("inf")
        allowed = _twins(trace, reference, f"{rung}/{name}") if tolerance is None else tolerance
        found.append((name, value, allowed))
    return _judge(precision, rung, found)


def _losses(precision: str, trace: Arrays, reference: Arrays, tolerance: np.ndarray) -> Rung:
    mine, theirs = _loss(trace, precision), _loss(reference, precision)
    if len(mine) != len(theirs):
        return _judge(precision, "steps", [("number of steps", float("inf"), 0.0)])
    values = np.abs(mine - theirs) / np.maximum(np.abs(theirs), FLOOR)
    values[~np.isfinite(values)] = np.inf
    found = [(f"step {k}", float(v), float(t)) for k, (v, t) in enumerate(zip(values, tolerance))]
    return _judge(precision, "steps", found)


def _checksums(precision: str, trace: Arrays, reference: Arrays) -> Rung:
    mine, theirs = (t[f"{precision}/steps/checksum"] for t in (trace, reference))
    same = len(mine) == len(theirs) and mine == theirs
    found = [
        (f"step {k}", 0.0 if s else float("inf"), 0.0) for k, s in enumerate(np.atleast_1d(same))
    ]
    return _judge(precision, "batches", found)


def _judge(precision: str, rung: str, found: list[tuple[str, float, float]]) -> Rung:
    beyond = [(name, value) for name, value, tolerance in found if not value <= tolerance]
    worst = max(
        found, key=lambda item: item[1] / max(item[2], 1e-300), default=("nothing", 0.0, 0.0)
    )
    first = beyond[0] if beyond else (None, None)
    return Rung(
        precision=precision,
        name=rung,
        value=worst[1],
        tolerance=worst[2],
        worst=worst[0],
        first=first[0],
        first_value=first[1],
    )


# The stage ------------------------------------------------------------------------------------


def judge(workload: str, traces: Mapping[str, Path]) -> dict[str, Any]:
    """Compare all traces of a workload with the first one.

    Args:
        traces: by variant; the first is the reference.

    Returns:
        The verdict, as written to ``verdict.json``.

    Raises:
        UserError: a trace is missing or not readable.
    """
    loaded = {name: load(path) for name, path in traces.items()}
    (reference, expected), *others = loaded.items()
    about = {name: json.loads(bytes(trace["about"])) for name, trace in loaded.items()}
    firm_steps = about[reference].get("firm_steps", FIRM_STEPS)
    comparisons = {}
    for name, trace in others:
        rungs = compare(trace, expected, firm_steps=firm_steps)
        comparisons[name] = {
            "passed": all(rung.passed for rung in rungs),
            "rungs": [_as_json(rung) for rung in rungs],
            "curves": _curves(trace, expected, firm_steps),
        }
    return {
        "schema": SCHEMA,
        "workload": workload,
        "reference": reference,
        "passed": all(c["passed"] for c in comparisons.values()),
        "comparisons": comparisons,
        "about": about,
    }


def load(path: Path) -> dict[str, np.ndarray]:
    """Read a trace.

    Raises:
        UserError: it is missing or not readable.
    """
    try:
        with np.load(path) as stored:
            return dict(stored)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable trace ({error}); remove it") from error


def explain(verdict: Mapping[str, Any]) -> list[str]:
    """Return one line a failed comparison: the first rung that failed, and what differs there."""
    lines = []
    for variant, comparison in verdict["comparisons"].items():
        for rung in comparison["rungs"]:
            if not rung["passed"]:
                lines.append(
                    f"{verdict['workload']}: {variant} is not {verdict['reference']}: "
                    f"{rung['precision']} {rung['name']}: {rung['first']} differs by "
                    f"{_number(rung['first_value'])}, allowed {rung['tolerance']:.1e}"
                )
                break
    return lines


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2e}"


def _as_json(rung: Rung) -> dict[str, Any]:
    # JSON knows no infinity.
    fields = {**vars(rung), "passed": rung.passed}
    return {k: "infinity" if v == float("inf") else v for k, v in fields.items()}


def _curves(trace: Arrays, reference: Arrays, firm_steps: int) -> dict[str, list[float] | None]:
    """Return the distance of every step's loss, and the float32 envelope, for the report."""
    envelope = loss_envelope(trace, reference, firm_steps)
    curves: dict[str, Any] = {"float32_tolerance": envelope.tolist()}
    for precision in ("float64", "float32"):
        mine, theirs = _loss(trace, precision), _loss(reference, precision)
        same = len(mine) == len(theirs)
        values = np.abs(mine - theirs) / np.maximum(np.abs(theirs), FLOOR) if same else None
        curves[precision] = None
        if values is not None and np.isfinite(values).all():
            curves[precision] = values.tolist()
    if not np.isfinite(curves["float32_tolerance"]).all():
        curves["float32_tolerance"] = None
    return curves


def write(verdict: Mapping[str, Any], path: Path) -> None:
    """Write a verdict."""
    files.write_json(path, verdict)
