"""The verdict on a workload: every variant's trace against the first one's."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.errors import UserError
from lockstep.parity import TRACE, own
from lockstep.parity.distances import Arrays, as_many_steps, loss_envelope, losses_apart, per_step
from lockstep.parity.rungs import FIRM_STEPS, Rung, compare, layers
from lockstep.parity.update import Rule
from lockstep.workloads.optimizers import Share

SCHEMA = "lockstep-parity/5"


def judge(workload: str, traces: Mapping[str, Path]) -> dict[str, Any]:
    """Read all traces of a workload and compare them with the first one.

    Args:
        traces: the file of each variant; the first is the reference.

    Returns:
        The verdict, as written to ``verdict.json``.

    Raises:
        UserError: a trace is missing or not readable.
    """
    return judge_loaded(workload, {name: load(path) for name, path in traces.items()})


def judge_loaded(workload: str, loaded: Mapping[str, Arrays]) -> dict[str, Any]:
    """As `judge`, of the arrays of each trace."""
    (reference, expected), *others = loaded.items()
    about = {name: json.loads(bytes(trace["about"])) for name, trace in loaded.items()}
    firm_steps = about[reference].get("firm_steps", FIRM_STEPS)
    rule = Rule(
        optimizer=about[reference]["optimizer"],
        shares={name: Share(*told) for name, told in about[reference]["shares"].items()},
        repeatable=all(told.get("device", "cpu") == "cpu" for told in about.values()),
    )
    comparisons = {}
    for name, trace in others:
        rungs = compare(trace, expected, firm_steps=firm_steps, rule=rule)
        comparisons[name] = {
            "passed": all(rung.passed for rung in rungs),
            "rungs": [_as_json(rung) for rung in rungs],
            "layers": _layers(trace, expected),
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
            arrays = dict(stored)
        about = json.loads(bytes(arrays["about"]))
    except Exception as error:  # a damaged file raises almost anything
        raise UserError(f"{path}: not a readable trace ({error}); remove it") from error
    if about.get("schema") != TRACE:
        raise UserError(
            f"{path}: the trace is of another version of Lockstep ({about.get('schema')}, not "
            f"{TRACE}); remove it, and the same command makes it again"
        )
    return arrays


def explain(verdict: Mapping[str, Any]) -> dict[str, str]:
    """Return for each comparison that failed one line: the first such rung, and what differs."""
    workload, reference = verdict["workload"], verdict["reference"]
    found = {v: failure(comparison) for v, comparison in verdict["comparisons"].items()}
    return {
        variant: f"{workload}: {variant} is not {reference}: {text}"
        for variant, text in found.items()
        if text
    }


def failed_rung(comparison: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first rung that failed, None if all passed."""
    return next((rung for rung in comparison["rungs"] if not rung["passed"]), None)


def held_to(rung: Mapping[str, Any]) -> float | str:
    """Return the tolerance that the first tensor of a failed rung was held to.

    Verdicts of earlier versions have that of the rung alone.
    """
    own: float | str | None = rung.get("first_tolerance")
    return rung["tolerance"] if own is None else own


LATER = {"steps": "final"}
"""The rung whose tensors say what a rung of losses alone does not."""


def failure(comparison: Mapping[str, Any]) -> str | None:
    """Return what differs on the first rung that failed, None if all passed.

    Where that is a step's loss, the tensor that differs most afterwards is named, too.
    """
    rung = failed_rung(comparison)
    if rung is None:
        return None
    precision, name = rung["precision"], rung["name"]
    said = (
        f"{precision} {name}: {rung['first']} differs by {_number(rung['first_value'], 2)}, "
        f"allowed {_number(held_to(rung), 1)}"
    )
    rungs = {(rung["precision"], rung["name"]): rung for rung in comparison["rungs"]}
    later = rungs.get((precision, LATER.get(name, "")))
    if later and not later["passed"]:
        said += f"; {later['worst']} differs most then, by {_number(later['value'], 2)}"
    return said


def _number(value: float | str, digits: int) -> str:
    return value if isinstance(value, str) else f"{value:.{digits}e}"


def _layers(trace: Arrays, reference: Arrays) -> list[dict[str, Any]]:
    """Return each layer's distance in float64 and float32, in the order of the network."""
    float32 = {name: value for name, value, _ in layers("float32", trace, reference)}
    return [
        {"name": name, "float64": _finite(value), "float32": _finite(float32.get(name, math.inf))}
        for name, value, _ in layers("float64", trace, reference)
    ]


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else "infinity"


def _as_json(rung: Rung) -> dict[str, Any]:
    # JSON knows no infinity.
    fields = {**vars(rung), "passed": rung.passed}
    return {k: _finite(v) if isinstance(v, float) else v for k, v in fields.items()}


def _curves(trace: Arrays, reference: Arrays, firm_steps: int) -> dict[str, list[float] | None]:
    """Return the distance of every step's loss, and the float32 envelope, for the report."""
    curves: dict[str, list[float] | None] = {"float32_tolerance": None}
    if as_many_steps(trace, reference, "float32"):
        curves["float32_tolerance"] = _curve(loss_envelope(trace, reference, firm_steps))
    for precision in ("float64", "float32"):
        curves[precision] = None
        if as_many_steps(trace, reference, precision):
            mine, theirs = (per_step(t, precision, "loss") for t in (trace, reference))
            curves[precision] = _curve(losses_apart(mine, theirs))
    for precision in own.BOUNDS:
        found = [_curve(own.curve(precision, side)) for side in (trace, reference)]
        if any(found):
            curves[precision] = [max(values) for values in zip(*filter(None, found))]
    return curves


def _curve(values: np.ndarray) -> list[float] | None:
    return values.tolist() if len(values) and np.isfinite(values).all() else None
