"""Whether a run had its machine to itself: the judgement that runs and report share.

A window is disturbed if others had more than `FOREIGN` of the run's CPUs around it, or if the run's
own threads waited for a CPU much longer than they do when nobody else is there. Such a window does
not count. A run of which too few windows count is not comparable in time, and one that is hopeless
ends early (`hopeless`). docs/performance.md says how the thresholds were measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FOREIGN = 0.05
"""Share of the run's CPUs that others may have had."""

DELAY = 0.25
"""Seconds that a run's threads may have waited for a CPU, a second and a thread, beyond what they
wait for each other: that is the lower quartile of the run's windows without foreign work."""

ENOUGH = 0.5
"""Share of the steady windows that must count."""

HOPELESS_SECONDS, HOPELESS_WINDOWS, HOPELESS = 60.0, 10, 0.95
"""After so long and so many steady windows, a run ends if so large a share of them is disturbed."""


def disturbed(windows: Mapping[str, np.ndarray], threads: int) -> np.ndarray:
    """Return for each row of ``windows.csv`` whether others disturbed it.

    Args:
        windows: its columns; `seconds`, `attempt`, `run_delay_seconds` and `foreign_cpu_share` are
            used. The last two are NaN where the kernel did not tell, or missing altogether.
        threads: CPU threads of the process that waited (`topology.threads` over its processes).

    Returns:
        bool, one a row; False where nothing was watched.
    """
    seconds = np.asarray(windows["seconds"], float)
    unknown = np.full(len(seconds), np.nan)
    foreign = _spread(
        np.asarray(windows.get("foreign_cpu_share", unknown), float),
        np.asarray(windows.get("attempt", np.zeros(len(seconds)))),
    )
    shared = foreign > FOREIGN
    waited = np.asarray(windows.get("run_delay_seconds", unknown), float) / (seconds * threads)
    alone = waited[~shared & np.isfinite(waited)]
    own = float(np.quantile(alone, 0.25)) if len(alone) else 0.0
    return np.asarray(shared | (waited > own + DELAY))


def _spread(shares: np.ndarray, attempts: np.ndarray) -> np.ndarray:
    """Return a foreign share for every window, of the reading that ended after it.

    `/proc/stat` is too coarse for short windows, so that it is read once for several; the windows
    after an attempt's last reading take that one's.
    """
    filled = shares.copy()
    for attempt in np.unique(attempts):
        rows = np.flatnonzero(attempts == attempt)
        read = rows[np.isfinite(shares[rows])]
        if len(read):
            which = np.minimum(np.searchsorted(read, rows), len(read) - 1)
            filled[rows] = shares[read[which]]
    return filled


def enough(undisturbed_steady_windows: int, steady_windows: int) -> bool:
    """Return whether a run's step time is that of the run alone, so that it may be compared."""
    return steady_windows > 0 and undisturbed_steady_windows >= ENOUGH * steady_windows


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return a run's windows as the columns of ``windows.csv``, float64; None becomes NaN."""
    return {name: np.array([row[name] for row in rows], float) for name in (rows or [{}])[0]}


def counts(windows: Mapping[str, np.ndarray], threads: int) -> np.ndarray:
    """Return which windows make up a step time, bool ``(windows,)``.

    Every one but the first of each start and those that other programs disturbed.

    Args:
        windows, threads: as for `disturbed`, with `warm_up`; without a column there is no window.
    """
    if not windows:
        return np.zeros(0, bool)
    return np.asarray((windows["warm_up"] == 0) & ~disturbed(windows, threads))


def hopeless(rows: Sequence[Mapping[str, Any]], threads: int) -> bool:
    """Return whether nothing that a run could still measure would be its own time.

    Args:
        rows: of ``windows.csv``, with None where the kernel did not tell.
        threads: as for `disturbed`.
    """
    steady = sum(not row["warm_up"] for row in rows)
    if steady < HOPELESS_WINDOWS or sum(row["seconds"] for row in rows) < HOPELESS_SECONDS:
        return False
    return int(counts(columns(rows), threads).sum()) <= (1 - HOPELESS) * steady
