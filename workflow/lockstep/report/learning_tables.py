"""Tables of what one workload learns: parity, losses, final metric, time to the target.

Metrics are means over seeds, times are medians over runs.
"""

from typing import Any

import numpy as np
import pandas as pd

from lockstep.records.parity_verdict import number
from lockstep.records.record_validation import FAILED
from lockstep.report import dataframes, statistics
from lockstep.report.dataframes import Workload
from lockstep.report.tables import RUNS, WHO, Absent, Table, table


def parity(view: Workload) -> Table | None:
    """Return the ladder: measured distance from the reference on every rung."""
    verdict = view.records.parity.get(view.name)
    if verdict is None:
        return None
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for variant, comparison in verdict["comparisons"].items():
        for rung in comparison["rungs"]:
            key = (rung["precision"], rung["name"])
            row = rows.setdefault(key, dict(zip(("precision", "rung"), key), tolerance=0.0))
            if rung["passed"]:
                value, at, allowed = (rung[k] for k in ("value", "worst", "tolerance"))
            else:
                value, at, allowed = map(rung.get, ("first_value", "first", "first_tolerance"))
                allowed = rung["tolerance"] if allowed is None else allowed
            mark = "✓ PASS" if rung["passed"] else "✗ FAIL"
            row[variant] = f"{number(value):.1e} {mark}" if number(value) else "0 ✓ PASS"
            row[f"{variant} at"] = at
            row["tolerance"] = max(row["tolerance"], number(allowed))
    return table(
        f"Parity ladder: relative difference from {verdict['reference']}",
        "precision | Precision\nrung | Rung\ntolerance | Tolerance | | 2g\n"
        + "".join(f"{v} | {v}\n{v} at | where largest\n" for v in verdict["comparisons"]),
        list(rows.values()),
        "Relative L2 difference per tensor, and per step for losses. A tolerance of 0 means "
        "equal to the bit. In float32 the steps and the final state may also differ by 10 "
        "times what a change of the weights by one unit in the last place causes.",
    )


def losses(view: Workload) -> Table:
    """Return training loss by epoch, side by side, mean over seeds, at the first scale."""
    config = view.records.study.config
    scale = config["scales"][0]
    chosen = view.epochs[view.epochs["scale"] == scale]
    means = chosen.groupby(["epoch", "variant"])["train_loss"].mean().unstack("variant")
    seeds = chosen.groupby("variant")["seed"].nunique()
    variants = [v for v in config["variants"] if v in means]
    return table(
        "Training loss by epoch",
        "epoch | Epoch | | d\n" + "".join(f"{v} | {v} | | 4f\n" for v in variants),
        means.assign(epoch=means.index + 1).to_dict("records"),
        f"Mean over seeds at scale {scale}; seeds: "
        f"{', '.join(f'{v} {seeds[v]}' for v in variants) or 'none'}.",
    )


def final_metric(view: Workload) -> Table:
    """Return the final metric: mean over seeds, its interval, and its spread."""
    names = {"n": "size", "mean": "mean", "sd": "std", "lowest": "min", "highest": "max"}
    known = dataframes.finished(view.runs).dropna(subset=["metric"])
    rows = dataframes.by_variant(known)["metric"].agg(**names).reset_index()
    half = statistics.half_width(rows["sd"] / np.sqrt(rows["n"]), rows["n"] - 1)
    return table(
        f"Final test {view.metric}",
        f"""{WHO}{RUNS}
        mean | Mean | | 4f
        low | 95% interval from | | 4f
        high | to | | 4f
        sd | Standard deviation over seeds | | 4f
        lowest | Lowest | | 4f
        highest | Highest | | 4f""",
        rows.assign(low=rows["mean"] - half, high=rows["mean"] + half),
        "t interval of the mean over seeds; one seed gives none.",
    )


def target(view: Workload) -> Table:
    """Return times to the target; runs that never met it are censored, not dropped.

    A run that diverged or was killed never meets it either: it is censored later than all that did.
    """
    rows, few = [], Absent("fewer than half of the runs met the target")
    for (scale, variant), group in dataframes.by_variant(dataframes.ended(view.runs)):
        times, reached = to_target(group)
        wall = group["target_wall"].to_numpy(dtype=float)  # NaN where it was not met
        known = np.isfinite(wall)
        training = statistics.censored_median(times, reached)
        whole = statistics.censored_median(np.where(known, wall, np.inf), known)
        rows.append(
            {
                "scale": scale,
                "variant": variant,
                "n": len(group),
                "reached": reached.sum(),
                "failed": (group["status"] == FAILED).sum(),
                "median": few if training is None else training,
                "wall": few if whole is None else whole,
            }
        )
    return table(
        f"Time to a test {view.metric} of {view.recipe['target']['value']:g}",
        f"""{WHO}{RUNS}
        reached | Met it | | d
        failed | Failed | | d
        median | Training alone, median | s | 4g
        wall | With preparation and evaluation, median | s | 4g""",
        rows,
        "Kaplan–Meier medians, read at the end of epochs. With preparation and evaluation means "
        "from the start of the process to the evaluation that met the target, as MLPerf counts. "
        "A run that failed before it met the target, also one that was killed and left no record, "
        "counts as one that never does.",
    )


def to_target(group: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return training times ``(n,)`` and whether the target was met then ``(n,)``."""
    reached = group["target_reached"].eq(True).to_numpy(dtype=bool)  # unknown where one was killed
    times = group["target_seconds"].to_numpy(dtype=float).copy()
    times[~reached & (group["status"] == FAILED).to_numpy()] = np.nanmax([0.0, *times])
    return times, reached
