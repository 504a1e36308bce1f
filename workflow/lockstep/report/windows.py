"""What a run's windows say: which of them count, its steady state, its first windows, its drift."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lockstep.training import contention

Columns = Mapping[str, np.ndarray]


def counts(windows: Columns, cpus: int) -> np.ndarray:
    """Return which windows make up a step time, bool ``(windows,)``.

    Every window but the first of each start and those that other programs disturbed.
    """
    return np.asarray((windows["warm_up"] == 0) & ~contention.disturbed(windows, cpus))


def cpus(summary: Mapping[str, Any]) -> int:
    """Return the CPUs of a process, as a run's summary has it; 1 in records without it."""
    watched = summary.get("contention")
    known = watched.get("cpus") if isinstance(watched, Mapping) else None
    return known if isinstance(known, int) and known > 0 else 1


def steady(windows: Columns, batch: int, cpus: int = 1) -> dict[str, Any] | None:
    """Return step time in the steady state, as a summary has it; None if no window counts.

    Short windows count by their steps. Records that are older than the column `examples` have the
    batch over the median step time for examples per second.
    """
    return _steady(windows, batch, counts(windows, cpus))


def _steady(windows: Columns, batch: int, counted: np.ndarray) -> dict[str, Any] | None:
    kept = {name: column[counted] for name, column in windows.items()}
    steps, seconds = kept["steps"], kept["seconds"]
    if not len(steps):
        return None
    per_step = np.repeat(seconds / steps, steps.astype(int))
    q1, median, q3, p95 = map(float, np.quantile(per_step, [0.25, 0.5, 0.75, 0.95]))
    found = {
        "windows": len(steps),
        "steps": int(steps.sum()),
        "step_seconds": {"median": median, "q1": q1, "q3": q3, "p95": p95},
        "examples_per_second": batch / median,
        "data_wait_fraction": float(kept["data_seconds"].sum() / seconds.sum()),
    }
    if "examples" in kept:
        rate = float(kept["examples"].sum() / seconds.sum())
        found |= {"examples_per_second": rate, "batch_per_median_step": batch / median}
    return found


def digest(windows: Columns, batch: int, cpus: int) -> dict[str, Any]:
    """Return what the report wants of a run's windows.

    Returns:
        `steady`: see `steady`.
        `timed`, `undisturbed`: how many windows there are but for the first of each start, and how
        many of them count; `enough`: whether that is enough for a step time.
        `first_seconds`: the first windows of all starts, without waiting for data.
        `at`, `seconds_per_step`: first step and step time of the timed windows, ``(timed,)``.
        `drift`: median step time of the last third of the windows that count over that of the first
        third, less 1; absent below nine windows. Thirds and medians, so that single slow windows
        do not look like a trend.
    """
    if not windows:
        return {}
    warm, counted = windows["warm_up"] > 0, counts(windows, cpus)
    timed, undisturbed = int((~warm).sum()), int(counted.sum())
    per_step = windows["seconds"] / windows["steps"]
    found: dict[str, Any] = {
        "steady": _steady(windows, batch, counted),
        "timed": timed,
        "undisturbed": undisturbed,
        "enough": undisturbed == timed or contention.enough(undisturbed, timed),
        "first_seconds": float((windows["seconds"] - windows["data_seconds"])[warm].sum()),
        "at": windows["step"][~warm].astype(np.int32),
        "seconds_per_step": per_step[~warm].astype(np.float32),
    }
    kept, third = per_step[counted], undisturbed // 3
    if third >= 3:
        found["drift"] = float(np.median(kept[-third:]) / np.median(kept[:third]) - 1)
    return found
