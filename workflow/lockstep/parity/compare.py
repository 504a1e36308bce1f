"""The verdict on a workload: every variant's trace against the first one's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.errors import UserError
from lockstep.parity.distances import Arrays, as_many_steps, loss_envelope, losses_apart, per_step
from lockstep.parity.rungs import FIRM_STEPS, Rung, compare

SCHEMA = "lockstep-parity/3"


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
            arrays = dict(stored)
        json.loads(bytes(arrays["about"]))
    except Exception as error:  # a damaged file raises almost anything
        raise UserError(f"{path}: not a readable trace ({error}); remove it") from error
    return arrays


def explain(verdict: Mapping[str, Any]) -> list[str]:
    """Return one line a failed comparison: the first rung that failed, and what differs there."""
    lines = []
    for variant, comparison in verdict["comparisons"].items():
        for rung in comparison["rungs"]:
            if not rung["passed"]:
                lines.append(
                    f"{verdict['workload']}: {variant} is not {verdict['reference']}: "
                    f"{rung['precision']} {rung['name']}: {rung['first']} differs by "
                    f"{_number(rung['first_value'], 2)}, allowed "
                    f"{_number(rung['first_tolerance'], 1)}"
                )
                break
    return lines


def _number(value: float | str, digits: int) -> str:
    return value if isinstance(value, str) else f"{value:.{digits}e}"


def _as_json(rung: Rung) -> dict[str, Any]:
    # JSON knows no infinity.
    fields = {**vars(rung), "passed": rung.passed}
    return {k: "infinity" if v == float("inf") else v for k, v in fields.items()}


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
    return curves


def _curve(values: np.ndarray) -> list[float] | None:
    return values.tolist() if len(values) and np.isfinite(values).all() else None
