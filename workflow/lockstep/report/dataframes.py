"""Records as data frames: a row for each run, epoch, cold start and timed window.

A number that a run does not have is NaN here; where the record says why, the reason stands in
the column ``NAME_absent``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lockstep.records.load import EXAMPLES, Record, Records
from lockstep.records.record_validation import FAILED, FINISHED
from lockstep.report.tables import Table
from lockstep.report.verdicts import Comparison
from lockstep.study.run import Scale

PREPARATION = ("import", "staging", "trace", "compile")
PHASES = (*PREPARATION, "training", "evaluation", "checkpoint")
"""Phases before the first step, and all that add up to a run; `data_wait` is a part of training."""
SPLIT = (*PREPARATION, "first_window", "steady", "data_wait", "evaluation", "checkpoint")
"""The same with the parts of training, in the order in which they first happen."""

KEY = ["workload", "variant", "scale", "seed"]
RESOURCES = ("rss", "allocated", "reserved", "planned", "flops_per_second", "energy")
STEP = ("step_median", "step_q1", "step_q3", "step_p95", "throughput")


def runs(records: Records) -> pd.DataFrame:
    """Return one row for each run of the study, finished or not."""
    return _ordered(records, pd.DataFrame([_row(records, run) for run in records.runs]))


def _ordered(records: Records, frame: pd.DataFrame) -> pd.DataFrame:
    """Have scales and variants sort as in the config."""
    for column, key in (("scale", "scales"), ("variant", "variants")):
        frame[column] = pd.Categorical(frame[column], list(records.study.config[key]), ordered=True)
    return frame


def by_variant(frame: pd.DataFrame, *more: str) -> Any:
    """Return rows grouped by scale and variant, in the config's order."""
    return frame.groupby(["scale", "variant", *more], observed=True)


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the finished runs of `runs` whose times and learning are their own."""
    return frame[(frame["status"] == FINISHED) & frame["own"]]


def ended(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of `finished`, and those that failed, with or without a record.

    A run that gave up on a busy machine has not failed to learn.
    """
    failed = (frame["status"] == FAILED) & ~frame["gave_up"]
    return frame[((frame["status"] == FINISHED) | failed) & frame["own"]]


def timed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return those rows of `ended` whose time to the target is their own.

    Other programs change when a run meets it, not that it never does.
    """
    return frame[frame["busy"].isna() | frame["target_reached"].eq(False)]


def cold_starts(records: Records) -> pd.DataFrame:
    """Return one row for each cold start: seconds of trace, compile and first window.

    One is measured apart for each variant that compiles, from an empty cache: `cold_start` of some
    run's summary.
    """
    rows = []
    for run in records.runs:
        start = run.summary.get("cold_start") or {}
        parts = ("trace", "compile", "first_window")
        found = {part: measured(start.get(f"{part}_seconds"))[0] for part in parts}
        rows.append({**dict(zip(KEY, run.key)), **found})
    return _ordered(records, pd.DataFrame(rows).dropna())


def epochs(records: Records) -> pd.DataFrame:
    """Return one row for each epoch of every finished run.

    `wall_seconds` is the time from the start of the process to the end of the epoch's evaluation.
    """
    values = ["epoch", "train_loss", "metric", "wall_seconds"]
    rows = [
        (*run.key, *(run.epochs[name] for name in ("epoch", "train_loss", run.metric)), _wall(run))
        for run in records.runs
        if run.counts
    ]
    frame = pd.DataFrame(rows, columns=[*KEY, *values]).explode(values, ignore_index=True)
    return _ordered(records, frame.astype(dict.fromkeys(values, float) | {"epoch": int}))


def _wall(record: Record) -> np.ndarray:
    """Return seconds from process start to the end of each epoch's evaluation, ``(epochs,)``."""
    seconds, training = record.summary["seconds"], record.epochs["training_seconds"]
    share = np.arange(1, len(training) + 1) / len(training)
    before = sum(seconds.get(phase, 0.0) for phase in PREPARATION)
    return np.asarray(before + training + share * seconds.get("evaluation", 0.0))


def measured(value: Any) -> tuple[float, str | None]:
    """Return a record's number, or NaN and the reason why there is none.

    A record says `3.2`, ``{"value": 3.2, …}`` or ``{"absent": REASON}``.
    """
    if isinstance(value, Mapping):
        if "absent" in value:
            return np.nan, str(value["absent"])
        value = value.get("value")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value), None
    return np.nan, "the record does not say"


def _row(records: Records, record: Record) -> dict[str, Any]:
    summary, windows = record.summary, record.windows
    none = 0.0 if summary else np.nan  # a run that left no record spent no known time
    seconds, target = summary.get("seconds", {}), summary.get("target", {})
    phases = {phase: float(seconds.get(phase, none)) for phase in PHASES}
    first, waited = windows.get("first_seconds", none), float(seconds.get("data_wait", none))
    steady = {} if record.disturbed else windows.get("steady") or {}
    steps = steady.get("step_seconds") or dict.fromkeys(("median", "q1", "q3", "p95"), np.nan)
    rate = "examples_per_second" if record.unit == EXAMPLES else "weight_per_second"
    reached, wall = bool(summary) and record.seconds_to_target is not None, np.nan
    if reached and record.status == FINISHED:
        wall = float(_wall(record)[record.epochs["step"] == target.get("step")][0])
    timed, undisturbed = windows.get("timed", none), windows.get("undisturbed", none)
    row = {
        **dict(zip(KEY, record.key)),
        "devices": Scale.parse(record.scale).size,
        "global_batch": records.study.workload(record.workload)["global_batch"],
        "status": record.status,
        "reason": record.reason or record.begun_elsewhere,
        "own": not record.begun_elsewhere,
        "gave_up": record.gave_up,
        "busy": record.disturbed,
        **phases,
        "total": sum(phases.values()),
        "data_wait": waited,
        "first_window": first,
        "steady": max(0.0, phases["training"] - waited - first),
        "cache": summary.get("cache"),
        "attempts": summary.get("attempts") or (1 if summary else np.nan),
        "drift": windows.get("drift", np.nan),
        **{f"step_{name}": value for name, value in steps.items()},
        "step_absent": record.disturbed or summary.get("steady", {}).get("absent"),
        "windows": undisturbed,
        "disturbed": timed - undisturbed,
        "data_wait_fraction": steady.get("data_wait_fraction", np.nan),
        "throughput": steady.get(rate, np.nan),
        "noise": (steps["q3"] - steps["q1"]) / steps["median"],
        "steps": summary.get("steps", np.nan),
        "metric": summary["metrics"].get(record.metric, np.nan) if summary else np.nan,
        "target_reached": reached if summary else None,
        "target_seconds": record.seconds_to_target if reached else seconds.get("training", np.nan),
        "target_wall": wall,
    }
    for name, value in zip(RESOURCES, _resources(summary), strict=True):
        row[name], row[f"{name}_absent"] = measured(value)
    return row


def _resources(summary: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a record says of `RESOURCES`."""
    memory = summary.get("memory", {})
    device, planned = memory.get("device") or {}, memory.get("planned") or {}
    if "absent" not in planned:
        numbers = [v for v in planned.values() if isinstance(v, (int, float))]
        planned = sum(numbers) if numbers else None
    return (
        *(memory.get("max_rss_bytes"), device.get("allocated", device)),
        *(device.get("reserved", device), planned),
        *((summary.get("flops") or {}).get("per_second"), summary.get("energy")),
    )


# Of one workload ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What the records hold of one workload, and the tables that are made of it."""

    records: Records
    name: str
    runs: pd.DataFrame  # rows of this workload
    epochs: pd.DataFrame
    cold: pd.DataFrame
    comparisons: Sequence[Comparison]
    tables: Mapping[str, Table] = field(default_factory=dict)  # by short name

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Its entry in the config."""
        return self.records.study.workload(self.name)

    @property
    def unit(self) -> str:
        """What throughput counts, as its runs say."""
        runs = (run for run in self.records.runs if run.workload == self.name and run.summary)
        return next((run.unit for run in runs), EXAMPLES)

    @property
    def metric(self) -> str:
        """The name of the metric that its target is of, in words."""
        return str(self.recipe["target"]["metric"]).replace("_", " ")
