"""Whether a run's records can be taken at their word: whole, its own, and free of contradiction."""

import csv
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lockstep.study import Study
from lockstep.study.run import Run

SCHEMAS = ("lockstep-record/1",)

FINISHED = "finished"
FAILED = "failed"

Columns = Mapping[str, np.ndarray]


class Unsound(Exception):
    """A record that cannot be taken at its word; the message says why."""


def read_summary(study: Study, run: Run, content: bytes) -> dict[str, Any]:
    """Return a run's summary.

    Raises:
        Unsound: it is not the record of this run, made as the study now says.
    """
    if not content.strip():
        raise Unsound("summary.json is empty")
    try:
        summary = json.loads(content)
    except ValueError as error:
        raise Unsound(f"summary.json is not whole ({error})") from error
    if not isinstance(summary, dict) or "schema" not in summary:
        raise Unsound("summary.json is not a record of a run: it names no schema")
    if summary["schema"] not in SCHEMAS:
        raise Unsound(
            f"summary.json has schema {summary['schema']!r}; this version reads "
            + " and ".join(SCHEMAS)
        )
    for name, kind in _FIELDS.items():
        if not isinstance(summary.get(name), kind):
            raise Unsound(f"summary.json has no sound field {name!r}")
    for name in ("variant", "recipe", "engine", "topology", "host", "determined_by"):
        if not isinstance(summary["contract"].get(name), dict):
            raise Unsound(f"summary.json has no sound field 'contract.{name}'")
    mine = (study.name, run.workload, run.variant, str(run.scale), run.seed)
    says = tuple(summary[k] for k in ("study", "workload", "variant", "scale", "seed"))
    if says != mine:
        raise Unsound(f"foreign: it is the record of {'/'.join(map(str, says))}")
    if summary["contract"]["recipe"] != study.workload(run.workload):
        raise Unsound("made with another recipe than the study now has; train again")
    if summary["contract"]["variant"] != study.variant(run.variant):
        raise Unsound("made with other settings than the variant now has; train again")
    return summary


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "study": str,
    "workload": str,
    "variant": str,
    "scale": str,
    "seed": int,
    "identity": str,
    "status": str,
    "steps": int,
    "seconds": dict,
    "steady": dict,
    "memory": dict,
    "metrics": dict,
    "target": dict,
    "batches": str,
    "dataset": dict,
    "weights": dict,
    "total_steps": int,
    "contract": dict,
}


def check(summary: Mapping[str, Any], epochs: Columns, windows: Columns) -> str | None:
    """Return why a run failed, None if it finished.

    Raises:
        Unsound: its records contradict each other.
    """
    if summary["status"] not in (FINISHED, FAILED):
        raise Unsound(f"contradictory: its status is {summary['status']!r}")
    for phase, seconds in summary["seconds"].items():
        if not isinstance(seconds, (int, float)) or not seconds >= 0:
            raise Unsound(f"contradictory: {phase} took {seconds} seconds")
    made = int(windows["steps"].sum()) if windows else 0
    if made != summary["steps"]:
        raise Unsound(f"contradictory: {summary['steps']} steps, but windows.csv has {made}")
    if summary["status"] == FAILED:
        return str(summary.get("reason") or "failed, and does not say why")
    if summary["steps"] != summary["total_steps"]:
        raise Unsound(
            f"contradictory: finished after {summary['steps']} of {summary['total_steps']} steps"
        )
    if not epochs:
        raise Unsound("contradictory: finished, but epochs.csv has no row")
    for name, value in summary["metrics"].items():
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return f"{name} is {value} at the end"
        if name not in epochs or not math.isclose(epochs[name][-1], value, rel_tol=1e-9):
            raise Unsound(f"contradictory: {name} is not what the last row of epochs.csv says")
    median = summary["steady"].get("step_seconds", {}).get("median")
    if median is not None and not (math.isfinite(median) and median > 0):
        raise Unsound(f"contradictory: a step took {median} seconds")
    return None


def read_columns(content: bytes, name: str) -> dict[str, np.ndarray]:
    """Return a table's columns as float64; an empty file has none."""
    try:
        rows = list(csv.reader(content.decode().splitlines()))
        if not rows:
            return {}
        if not content.endswith(b"\n") or any(len(row) != len(rows[0]) for row in rows):
            raise Unsound(f"{name} is truncated")
        values = np.array(rows[1:], dtype=np.float64).reshape(len(rows) - 1, len(rows[0]))
    except ValueError as error:
        raise Unsound(f"{name} is not a table of numbers ({error})") from error
    missing = {"epochs.csv": _EPOCHS, "windows.csv": _WINDOWS}[name] - set(rows[0])
    if missing:
        raise Unsound(f"{name} has no column {sorted(missing)[0]!r}")
    return dict(zip(rows[0], values.T, strict=True))


_EPOCHS = {"epoch", "step", "train_loss", "test_loss", "training_seconds"}
_WINDOWS = {"step", "steps", "seconds", "data_seconds", "warm_up"}
