"""How a run's rates are worked out: step time, examples a second, operations a second.

Runs and those who check their records share it. It needs NumPy alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

FLOPS_FORMULA = "3 x forward FLOPs of an example x examples (backward counted as two forwards)"


def steady(
    windows: Mapping[str, np.ndarray], batch: int, counted: np.ndarray
) -> dict[str, Any] | None:
    """Return step time in the steady state, as a summary has it; None if no window counts.

    Short windows count by their steps. Records that are older than the column `examples` have the
    batch over the median step time for examples per second.

    Args:
        windows: columns of ``windows.csv``.
        batch: the global batch.
        counted: which windows count (`lockstep.training.contention.counts`).
    """
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
    if "weight" in kept:
        found["weight_per_second"] = float(kept["weight"].sum() / seconds.sum())
    return found
