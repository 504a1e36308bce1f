"""Records as data frames: a row for each run, epoch and cold start.

A number that a run does not have is NaN here; where the record says why, the reason stands in
the column ``NAME_absent``.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lockstep.report.load import FAILED, FINISHED, Record, Records
from lockstep.report.verdicts import Comparison
from lockstep.study.run import Scale

PHASES = ("import", "staging", "trace", "compile", "training", "evaluation", "checkpoint")
"""Phases that add up to a run; `data_wait` is a part of training."""

PREPARATION = PHASES[:4]
"""Those before the first step."""

KEY = ["workload", "variant", "scale", "seed"]
COLD_PARTS = ("trace", "compile", "first_window")
EPOCHS = ("epoch", "step", "train_loss", "test_loss", "training_seconds")
NAN = float("nan")


def runs(records: Records) -> pd.DataFrame:
    """Return one row for each run of the study, finished or not."""
    frame = pd.DataFrame([_row(records, record) for record in records.runs])
    frame["finished"] = frame["status"] == FINISHED
    # Some columns are there in any case, so that a study without a record needs no other code.
    for name in ("cache", "target_seconds", "step_median", "step_absent", "examples_per_second"):
        if name not in frame:
            frame[name] = np.nan
    return frame


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the finished runs of `runs` whose times and learning are their own."""
    return frame[frame["finished"] & frame["own"]]


def ended(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of `finished`, and those that failed, be it without any record of it.

    A run that gave up on a busy machine has not failed to learn.
    """
    if "target_reached" not in frame:
        return frame.iloc[:0]
    failed = (frame["status"] == FAILED) & ~frame["gave_up"]
    return frame[(frame["finished"] | failed) & frame["own"]]


def warm(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that started with what was compiled before, or compile nothing."""
    return frame[frame["cache"] != "cold"]


def cold_starts(records: Records) -> pd.DataFrame:
    """Return one row for each cold start: seconds of trace, compile and first window.

    One is measured on purpose for a variant that compiles, from an empty cache (`cold_start` of
    some run's summary); runs that happened to find an empty cache are others.
    """
    rows = []
    for run in records.runs:
        start = run.summary.get("cold_start")
        found = {}
        if isinstance(start, Mapping):
            found = {part: measured(start.get(f"{part}_seconds"))[0] for part in COLD_PARTS}
        elif run.status == FINISHED and run.summary["cache"] == "cold":
            seconds = run.summary["seconds"]
            first = run.windows.get("first_seconds", NAN)
            found = dict(zip(COLD_PARTS, (seconds["trace"], seconds["compile"], first)))
        if found and not np.isnan(list(found.values())).any():
            rows.append({**dict(zip(KEY, run.key)), **found})
    return pd.DataFrame(rows, columns=[*KEY, *COLD_PARTS])


def epochs(records: Records) -> pd.DataFrame:
    """Return one row for each epoch of every finished run.

    `wall_seconds` is the time from the start of the process to the end of the epoch's evaluation.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*KEY, *EPOCHS)}
    parts |= {"metric": [], "wall_seconds": []}
    for record in records.runs:
        if record.status != FINISHED or record.begun_elsewhere:
            continue
        for name, value in zip(KEY, record.key):
            parts[name].append(np.full(len(record.epochs["epoch"]), value, dtype=object))
        for name in EPOCHS:
            parts[name].append(record.epochs[name])
        parts["metric"].append(record.epochs[metric_name(record.summary)])
        parts["wall_seconds"].append(_wall(record))
    frame = pd.DataFrame({k: np.concatenate([[], *v]) if v else [] for k, v in parts.items()})
    return frame.astype({"seed": "int64", "epoch": "int64"})


def metric_name(summary: Mapping[str, Any]) -> str:
    """Return the column of the metric that the target is of."""
    return f"test_{summary['target']['metric']}"


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
            return NAN, str(value["absent"])
        value = value.get("value")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value), None
    return NAN, "the record does not say"


def _row(records: Records, record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {
        **dict(zip(KEY, record.key)),
        "devices": Scale.parse(record.scale).size,
        "global_batch": records.study.workload(record.workload)["global_batch"],
        "status": record.status,
        "reason": record.reason or record.begun_elsewhere,
        "own": not record.begun_elsewhere,
        "gave_up": record.gave_up,
    }
    return row | (_times(record) | _results(record) if record.summary else {})


def _times(record: Record) -> dict[str, Any]:
    summary, seconds = record.summary, record.summary["seconds"]
    row: dict[str, Any] = {phase: float(seconds.get(phase, 0.0)) for phase in PHASES}
    first, waited = record.windows.get("first_seconds", 0.0), float(seconds.get("data_wait", 0.0))
    steady = record.windows.get("steady") or {}
    steady = {} if record.disturbed else steady
    steps = steady.get("step_seconds") or {}
    timed, undisturbed = (record.windows.get(name, 0) for name in ("timed", "undisturbed"))
    return row | {
        "total": sum(row.values()),
        "data_wait": waited,
        "first_window": first,
        "steady": max(0.0, row["training"] - waited - first),
        "cache": summary.get("cache"),
        "attempts": summary.get("attempts") or 1,
        "drift": record.windows.get("drift", NAN),
        **{f"step_{name}": steps.get(name, NAN) for name in ("median", "q1", "q3", "p95")},
        "step_absent": record.disturbed or summary["steady"].get("absent"),
        "windows": undisturbed,
        "disturbed": timed - undisturbed,
        **{k: steady.get(k, NAN) for k in ("data_wait_fraction", "examples_per_second")},
        "noise": (steps["q3"] - steps["q1"]) / steps["median"] if steps else NAN,
    }


def _results(record: Record) -> dict[str, Any]:
    summary, memory, target = record.summary, record.summary["memory"], record.summary["target"]
    device, planned = memory.get("device") or {}, memory.get("planned") or {}
    step, seconds = target.get("step"), target.get("training_seconds")
    reached = seconds is not None
    wall = _wall(record) if reached and record.status == FINISHED else None
    row: dict[str, Any] = {
        "steps": summary["steps"],
        "metric": summary["metrics"].get(metric_name(summary), NAN),
        "target_reached": reached,
        "target_step": NAN if step is None else step,
        "target_seconds": seconds if reached else summary["seconds"].get("training", NAN),
        "target_wall": NAN if wall is None else float(wall[record.epochs["step"] == step][0]),
    }
    for name, value in (
        ("rss", memory.get("max_rss_bytes")),
        ("allocated", device.get("allocated", device)),
        ("reserved", device.get("reserved", device)),
        ("planned", planned if "absent" in planned else _sum(planned)),
        ("flops_per_second", (summary.get("flops") or {}).get("per_second")),
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
    reasons = frame[column].dropna().tolist() if column in frame else []
    return max(sorted(set(reasons)), key=reasons.count) if reasons else "no run has it"


# Of one workload ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class View:
    """What the records hold of one workload.

    Attributes:
        runs, epochs, cold: rows of this workload.
    """

    records: Records
    name: str
    runs: pd.DataFrame
    epochs: pd.DataFrame
    cold: pd.DataFrame
    comparisons: Sequence[Comparison]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The workload's entry in the config."""
        return self.records.study.workload(self.name)

    def groups(
        self, chosen: Callable[[pd.DataFrame], pd.DataFrame] = finished
    ) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """Yield scale, variant and chosen runs, in the config's order; empty groups too."""
        grouped = dict(iter(chosen(self.runs).groupby(["scale", "variant"], sort=False)))
        config = self.records.study.config
        for scale, variant in itertools.product(config["scales"], config["variants"]):
            yield scale, variant, grouped.get((scale, variant), self.runs.iloc[:0])


def who(scale: str, variant: str, group: pd.DataFrame, **more: Any) -> dict[str, Any]:
    """Return the first columns of a row for some runs of a variant at a scale."""
    return {"scale": scale, "variant": variant, "n": len(group), **more}


def medians(group: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """Return the medians of some columns; NaN for one that there is not."""
    return {name: float(group[name].median()) if name in group else NAN for name in names}
