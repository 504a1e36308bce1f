"""What a run's windows say: which of them count, its steady state, its first windows, its drift."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lockstep.training import contention

Columns = Mapping[str, np.ndarray]


def steady(windows: Columns, batch: int) -> dict[str, Any] | None:
    """Return step time in the steady state, as a summary has it; None without such a window.

    Every window but the first of each start; short windows count by their steps.
    """
    kept = {name: column[windows["warm_up"] == 0] for name, column in windows.items()}
    return _steady(kept, batch) if len(kept["steps"]) else None


def _steady(kept: Columns, batch: int) -> dict[str, Any]:
    steps, seconds = kept["steps"], kept["seconds"]
    per_step = np.repeat(seconds / steps, steps.astype(int))
    q1, median, q3, p95 = map(float, np.quantile(per_step, [0.25, 0.5, 0.75, 0.95]))
    return {
        "windows": len(steps),
        "steps": int(steps.sum()),
        "step_seconds": {"median": median, "q1": q1, "q3": q3, "p95": p95},
        "examples_per_second": batch / median,
        "data_wait_fraction": float(kept["data_seconds"].sum() / seconds.sum()),
    }


def digest(windows: Columns, batch: int, threads: int) -> dict[str, Any]:
    """Return what the report wants of a run's windows.

    A window during which the run had to wait for its cores (`lockstep.training.contention`) does
    not count towards the steady state.

    Returns:
        `steady`: as a summary has it, of the windows that count; None without one.
        `timed`, `undisturbed`: how many steady windows there are, and how many of them count.
        `enough`: whether that is enough for a step time.
        `counted`: first step and end of the windows that count, int64 ``(windows, 2)``.
        `counted_seconds`: of all of them.
        `first_seconds`: the warm-up windows, without waiting for data.
        `drift`: median step time of the last third of the steady windows over that of the first
        third, less 1; absent below nine windows. Thirds and medians, so that single slow windows
        do not look like a trend.
    """
    if not windows:
        return {}
    warm = windows["warm_up"] > 0
    counts = ~warm
    if "run_delay_seconds" in windows:
        counts = counts & ~contention.disturbed(windows, threads)
    kept = {name: column[counts] for name, column in windows.items()}
    timed, undisturbed = int((~warm).sum()), int(counts.sum())
    found: dict[str, Any] = {
        "steady": _steady(kept, batch) if undisturbed else None,
        "timed": timed,
        "undisturbed": undisturbed,
        "enough": undisturbed == timed or contention.enough(undisturbed, timed),
        "counted": np.stack([kept["step"], kept["step"] + kept["steps"]], axis=1).astype(int),
        "counted_seconds": float(kept["seconds"].sum()),
        "first_seconds": float((windows["seconds"] - windows["data_seconds"])[warm].sum()),
    }
    per_step = kept["seconds"] / kept["steps"]
    third = len(per_step) // 3
    if third >= 3:
        found["drift"] = float(np.median(per_step[-third:]) / np.median(per_step[:third]) - 1)
    return found


def rate(digest: Mapping[str, Any], counts: np.ndarray) -> float | None:
    """Return examples over seconds of the windows that count; None without one.

    Args:
        counts: real examples of every step, without the padding of an incomplete batch,
            ``(steps,)``.
    """
    if not digest.get("counted_seconds"):
        return None
    until = np.r_[0, counts.cumsum(dtype=np.int64)]
    begin, end = digest["counted"].T
    return float((until[end] - until[begin]).sum() / digest["counted_seconds"])
