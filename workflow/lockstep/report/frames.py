"""Records as data frames: a row a run, a row an epoch.

A number that a run does not have is NaN here; where the record says why, the reason stands in
the column ``NAME_absent``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lockstep.report.load import FAILED, FINISHED, Record, Records
from lockstep.study.run import Scale

PHASES = ("import", "staging", "trace", "compile", "training", "evaluation", "checkpoint")
"""Phases that add up to a run; `data_wait` is a part of training."""

KEY = ["workload", "variant", "scale", "seed"]


def runs(records: Records) -> pd.DataFrame:
    """Return one row a run of the study, finished or not."""
    frame = pd.DataFrame([_row(records, record) for record in records.runs])
    frame["finished"] = frame["status"] == FINISHED
    return frame


def cold_starts(records: Records) -> pd.DataFrame:
    """Return one row a cold start that was measured: seconds of trace, compile and first window.

    One is measured on purpose for a variant that compiles, from an empty cache; runs that happened
    to find an empty cache are others.
    """
    rows = []
    for run in records.runs:
        start = run.summary.get("cold_start")
        if not isinstance(start, Mapping):
            continue
        found = {part: measured(start.get(f"{part}_seconds"))[0] for part in COLD_PARTS}
        if not any(np.isnan(value) for value in found.values()):
            rows.append({**dict(zip(KEY, run.key, strict=True)), **found})
    return pd.DataFrame(rows, columns=[*KEY, *COLD_PARTS])


COLD_PARTS = ("trace", "compile", "first_window")


def warm(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that started with what was compiled before, or compile nothing."""
    return frame[frame["cache"] != "cold"] if "cache" in frame else frame


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the finished runs of `runs` whose times and learning are their own."""
    return frame[frame["finished"] & frame["own"]]


def ended(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of `finished`, and those that failed, be it without any record of it."""
    if "target_seconds" not in frame:
        return frame.iloc[:0]
    return frame[(frame["finished"] | (frame["status"] == FAILED)) & frame["own"]]


def epochs(records: Records) -> pd.DataFrame:
    """Return one row an epoch of every finished run."""
    parts: dict[str, list[np.ndarray]] = {}
    for record in records.runs:
        if record.status != FINISHED or record.begun_elsewhere:
            continue
        length = len(record.epochs["epoch"])
        for name, value in zip(KEY, record.key, strict=True):
            parts.setdefault(name, []).append(np.full(length, value, dtype=object))
        for name in ("epoch", "step", "train_loss", "test_loss", "training_seconds"):
            parts.setdefault(name, []).append(record.epochs[name])
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    frame = pd.DataFrame(columns, columns=[*KEY, *_EPOCH_COLUMNS])
    return frame.astype({"seed": "int64", "epoch": "int64"})


_EPOCH_COLUMNS = ["epoch", "step", "train_loss", "test_loss", "training_seconds"]


def measured(value: Any) -> tuple[float, str | None]:
    """Return a record's number, or NaN and the reason why there is none.

    A record says `3.2`, ``{"value": 3.2, …}`` or ``{"absent": REASON}``.
    """
    if isinstance(value, Mapping):
        if "absent" in value:
            return float("nan"), str(value["absent"])
        value = value.get("value")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value), None
    return float("nan"), "the record does not say"


def _row(records: Records, record: Record) -> dict[str, Any]:
    study = records.study
    scale = Scale.parse(record.scale)
    recipe = study.workload(record.workload)
    row: dict[str, Any] = {
        **dict(zip(KEY, record.key, strict=True)),
        "framework": study.variant(record.variant)["framework"],
        "devices": scale.size,
        "global_batch": recipe["global_batch"],
        "status": record.status,
        "reason": record.reason or record.begun_elsewhere,
        "own": not record.begun_elsewhere,
        "folder": record.folder.as_posix(),
    }
    if record.summary:
        row |= _times(record) | _results(record)
    return row


def _times(record: Record) -> dict[str, Any]:
    summary, seconds = record.summary, record.summary["seconds"]
    row: dict[str, Any] = {phase: float(seconds.get(phase, 0.0)) for phase in PHASES}
    first = record.windows.get("first_seconds", 0.0)
    row |= {
        "total": sum(row[phase] for phase in PHASES),
        "preparation": row["trace"] + row["compile"],
        "data_wait": float(seconds.get("data_wait", 0.0)),
        "first_window": first,
        "steady": max(0.0, row["training"] - float(seconds.get("data_wait", 0.0)) - first),
        "cache": summary.get("cache"),
        "attempts": summary.get("attempts") or 1,
        "drift": record.windows.get("drift", float("nan")),
    }
    steady = record.windows.get("steady") or {}
    steps = {} if record.disturbed else steady.get("step_seconds") or {}
    row |= {f"step_{name}": steps.get(name, float("nan")) for name in ("median", "q1", "q3", "p95")}
    row["step_absent"] = record.disturbed or summary["steady"].get("absent")
    row["windows"] = steady.get("windows") or 0
    row["disturbed"] = record.windows.get("timed", 0) - record.windows.get("undisturbed", 0)
    for name in ("examples_per_second", "data_wait_fraction"):
        row[name] = float("nan") if record.disturbed else steady.get(name, float("nan"))
    row["noise"] = (row["step_q3"] - row["step_q1"]) / row["step_median"]
    return row


def _results(record: Record) -> dict[str, Any]:
    summary, memory, target = record.summary, record.summary["memory"], record.summary["target"]
    device = memory.get("device") or {}
    planned = memory.get("planned") or {}
    flops = summary.get("flops") or {}
    step, seconds = target.get("step"), target.get("training_seconds")
    row: dict[str, Any] = {
        "steps": summary["steps"],
        "metric_name": f"test_{target['metric']}",
        "metric": summary["metrics"].get(f"test_{target['metric']}", float("nan")),
        "target_value": target["value"],
        "target_reached": seconds is not None,
        "target_step": float("nan") if step is None else step,
        "target_seconds": summary["seconds"].get("training", float("nan"))
        if seconds is None
        else seconds,
    }
    for name, value in (
        ("rss", memory.get("max_rss_bytes")),
        ("allocated", device.get("allocated", device)),
        ("reserved", device.get("reserved", device)),
        ("planned", planned if "absent" in planned else _sum(planned)),
        ("flops_per_second", flops.get("per_second")),
        ("energy", summary.get("energy")),
    ):
        row[name], row[f"{name}_absent"] = measured(value)
    return row


def _sum(planned: Mapping[str, Any]) -> Any:
    numbers = [v for v in planned.values() if isinstance(v, (int, float))]
    return sum(numbers) if numbers else None


def reason(frame: pd.DataFrame, name: str) -> str:
    """Return why `name` is absent in `frame`: the commonest reason its records give."""
    column = f"{name}_absent"
    reasons: Sequence[str] = frame[column].dropna().tolist() if column in frame else []
    return max(sorted(set(reasons)), key=list(reasons).count) if reasons else "no run has it"
