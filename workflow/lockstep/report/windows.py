"""What a run's windows say: its steady state, its first windows, its drift."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Columns = Mapping[str, np.ndarray]


def steady(windows: Columns, batch: int) -> dict[str, Any] | None:
    """Return step time in the steady state, as a summary has it; None without such a window.

    Every window but the first of each start; short windows count by their steps.
    """
    kept = {name: column[windows["warm_up"] == 0] for name, column in windows.items()}
    steps, seconds = kept["steps"], kept["seconds"]
    if not len(steps):
        return None
    per_step = np.repeat(seconds / steps, steps.astype(int))
    q1, median, q3, p95 = map(float, np.quantile(per_step, [0.25, 0.5, 0.75, 0.95]))
    return {
        "windows": len(steps),
        "steps": int(steps.sum()),
        "step_seconds": {"median": median, "q1": q1, "q3": q3, "p95": p95},
        "examples_per_second": batch / median,
        "data_wait_fraction": float(kept["data_seconds"].sum() / seconds.sum()),
    }


def digest(windows: Columns) -> dict[str, float]:
    """Return the few numbers that the report wants of a run's windows.

    Returns:
        `first_seconds`: the warm-up windows, without waiting for data.
        `drift`: median step time of the last third of the steady windows over that of the first
        third, less 1; absent below nine windows. Thirds and medians, so that single slow windows
        do not look like a trend.
    """
    if not windows:
        return {}
    warm = windows["warm_up"] > 0
    found = {"first_seconds": float((windows["seconds"] - windows["data_seconds"])[warm].sum())}
    per_step = windows["seconds"][~warm] / windows["steps"][~warm]
    third = len(per_step) // 3
    if third >= 3:
        found["drift"] = float(np.median(per_step[-third:]) / np.median(per_step[:third]) - 1)
    return found
