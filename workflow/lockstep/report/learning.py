"""Tables of what is learned: parity, losses, final metric, time to target.

A run counts once; metrics are means over seeds, times are medians.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lockstep.report import frames, statistics
from lockstep.report.columns import WHO, N, groups
from lockstep.report.load import FAILED, Records
from lockstep.report.sentences import metric_decimals
from lockstep.report.tables import Absent, Column, Table
from lockstep.report.verdicts import Comparison

COPIED = (0.243, 0.172, 0.132, 0.109, 0.091, 0.079, 0.067, 0.060, 0.056, 0.050)
"""Epoch losses that the widely copied comparison prints for both frameworks."""

COPIED_RECIPE = {"workload": "mnist_cnn", "epochs": 10, "global_batch": 64}
COPIED_OPTIMIZER = {"name": "sgd", "learning_rate": 0.001, "momentum": 0.9}


def parity(records: Records, workload: str) -> Table | None:
    """Return the ladder: measured distance from the reference on every rung."""
    verdict = records.parity.get(workload)
    if verdict is None:
        return None
    variants = list(verdict["comparisons"])
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for variant, comparison in verdict["comparisons"].items():
        for rung in comparison["rungs"]:
            row = rows.setdefault(
                (rung["precision"], rung["name"]),
                {"precision": rung["precision"], "rung": rung["name"]},
            )
            word = "PASS" if rung["passed"] else "FAIL"
            value = rung["value"] if rung["passed"] else rung["first_value"]
            where = rung["worst"] if rung["passed"] else rung["first"]
            row[variant] = f"{_distance(value)} {'✓' if rung['passed'] else '✗'} {word}"
            row[f"{variant} at"] = where
            held_to = "tolerance" if rung["passed"] else "first_tolerance"  # unless it is older
            allowed = _float(rung.get(held_to, rung["tolerance"]))
            row["tolerance"] = max(row.get("tolerance", 0.0), allowed)
    columns = [
        Column(key="precision", label="Precision"),
        Column(key="rung", label="Rung"),
        Column(key="tolerance", label="Tolerance", digits=2),
    ]
    for variant in variants:
        columns.append(Column(key=variant, label=variant))
        columns.append(Column(key=f"{variant} at", label="where largest"))
    return Table(
        name=f"{workload}-parity",
        title=f"Parity ladder: relative distance from {verdict['reference']}",
        columns=columns,
        rows=list(rows.values()),
        note=(
            "Relative L2 distance per tensor, and per step for losses. A tolerance of 0 means "
            "equal to the bit. In float32 the steps and the final state may also differ by 10 "
            "times what a change of the weights by one unit in the last place causes."
        ),
    )


def _distance(value: Any) -> str:
    return f"{value:.1e}" if isinstance(value, (int, float)) and value else str(value or 0)


def _float(value: Any) -> float:
    return float("inf") if value == "infinity" else float(value)


def losses(records: Records, workload: str, epochs: pd.DataFrame) -> Table:
    """Return training loss by epoch, side by side, mean over seeds, at the first scale."""
    scale = records.study.config["scales"][0]
    chosen = epochs[epochs["scale"] == scale]
    means = chosen.groupby(["epoch", "variant"])["train_loss"].mean().unstack("variant")
    variants = [v for v in records.study.config["variants"] if v in means]
    columns = [Column(key="epoch", label="Epoch", unit="count")]
    columns += [Column(key=v, label=v, decimals=4) for v in variants]
    copied = copied_series(records, workload)
    if copied:
        columns.append(
            Column(
                key="copied", label="The widely copied table (its code does not run)", decimals=3
            )
        )
    rows = [
        {"epoch": int(epoch) + 1, **{v: float(values[v]) for v in variants}}
        | ({"copied": copied[epoch]} if copied and epoch < len(copied) else {})
        for epoch, values in means.iterrows()
    ]
    seeds = chosen.groupby("variant")["seed"].nunique()
    counts = ", ".join(f"{v} {seeds[v]}" for v in variants)
    return Table(
        name=f"{workload}-losses",
        title="Training loss by epoch",
        columns=columns,
        rows=rows,
        note=f"Mean over seeds at scale {scale}; seeds: {counts or 'none'}.",
    )


def copied_series(records: Records, workload: str) -> tuple[float, ...] | None:
    """Return the widely copied losses if this is the recipe that they are printed for."""
    recipe = records.study.workload(workload)
    source = records.study.config["datasets"][recipe["dataset"]]["source"]
    same = all(recipe[k] == v for k, v in COPIED_RECIPE.items())
    same &= all(recipe["optimizer"][k] == v for k, v in COPIED_OPTIMIZER.items())
    return COPIED if same and source == "mnist" and not recipe["max_steps"] else None


def target(records: Records, workload: str, runs: pd.DataFrame) -> Table:
    """Return training time to the target; runs that never met it are censored, not dropped.

    A run that diverged or was killed never meets it either: it is censored later than all that did.
    """
    goal = records.study.workload(workload)["target"]
    rows = []
    for scale, variant, group in groups(records, runs, frames.ended):
        if not len(group):
            continue
        times, reached = to_target(group)
        median = statistics.censored_median(times, reached)
        rows.append(
            {
                "scale": scale,
                "variant": variant,
                "n": len(group),
                "reached": int(reached.sum()),
                "failed": int((group["status"] == FAILED).sum()),
                "median": median
                if median is not None
                else Absent(reason="fewer than half of the runs met the target"),
                "fastest": float(times[reached].min()) if reached.any() else None,
                "slowest": float(times.max()) or Absent(reason="no run has a time"),
                "slowest_is": "met" if reached[times == times.max()].all() else "censored: not met",
            }
        )
    return Table(
        name=f"{workload}-time-to-target",
        title=f"Training time to a test {goal['metric']} of {goal['value']:g}",
        columns=[
            *WHO,
            N,
            Column(key="reached", label="Met it", unit="count"),
            Column(key="failed", label="Failed", unit="count"),
            Column(key="median", label="Median", unit="s", digits=4),
            Column(key="fastest", label="Fastest", unit="s", digits=4),
            Column(key="slowest", label="Slowest", unit="s", digits=4),
            Column(key="slowest_is", label="The slowest"),
        ],
        rows=rows,
        note=(
            "Kaplan–Meier median of training time, read at the end of epochs, without "
            "preparation and evaluation. A run that failed before it met the target, also one that "
            "was killed and left no record, counts as one that never does."
        ),
    )


def to_target(group: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return training times ``(n,)`` and whether the target was met then ``(n,)``."""
    reached = group["target_reached"].eq(True).to_numpy(dtype=bool)  # unknown where one was killed
    times = group["target_seconds"].to_numpy(dtype=float).copy()
    times[~reached & (group["status"] == FAILED).to_numpy()] = np.nanmax([0.0, *times])
    return times, reached


def final_metric(records: Records, workload: str, runs: pd.DataFrame) -> Table:
    """Return the final metric over seeds."""
    name = f"test_{records.study.workload(workload)['target']['metric']}"
    rows = []
    for scale, variant, group in groups(records, runs):
        if not len(group) or group["metric"].isna().all():
            continue
        values = group["metric"].to_numpy(dtype=float)
        mean, low, high = statistics.mean_interval(values)
        one = Absent(reason="one seed gives no interval")
        rows.append(
            {
                "scale": scale,
                "variant": variant,
                "n": len(values),
                "mean": mean,
                "low": one if low is None else low,
                "high": one if high is None else high,
                "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                "lowest": float(values.min()),
                "highest": float(values.max()),
            }
        )
    return Table(
        name=f"{workload}-final-metric",
        title=f"Final {name.replace('_', ' ')}",
        columns=[
            *WHO,
            N,
            Column(key="mean", label="Mean", decimals=4),
            Column(key="low", label="95% interval from", decimals=4),
            Column(key="high", label="to", decimals=4),
            Column(key="sd", label="Deviation over seeds", decimals=4),
            Column(key="lowest", label="Lowest", decimals=4),
            Column(key="highest", label="Highest", decimals=4),
        ],
        rows=rows,
        note="t interval of the mean over seeds.",
    )


def quality(records: Records, workload: str, comparisons: Sequence[Comparison]) -> Table:
    """Return the equivalence tests of the final metric, with the same-framework noise floor.

    The floor of a scale is the largest mean absolute difference between two comparable variants of
    one framework: what rounding alone does to the metric.
    """
    values = {
        (run.variant, run.scale, run.seed): run.summary["metrics"]
        for run in records.runs
        if run.workload == workload and run.summary
    }
    floors: dict[str, float] = {}
    for c in comparisons:
        a, b = (records.study.variant(v) for v in (c.baseline, c.candidate))
        if (a["framework"], a["precision"]) != (b["framework"], b["precision"]) or c.problems:
            continue
        if not c.quality:
            continue
        sides = [
            [values[v, c.scale, s][c.metric] for s in c.seeds] for v in (c.baseline, c.candidate)
        ]
        gaps = [abs(a - b) for a, b in zip(*sides, strict=True)]
        if gaps:
            floors[c.scale] = max(floors.get(c.scale, 0.0), float(np.mean(gaps)))
    unknown = Absent(reason="no two comparable variants of one framework")
    single = Absent(reason="one pair gives no interval")
    rows = [
        {
            "scale": c.scale,
            "candidate": c.candidate,
            "baseline": c.baseline,
            "n": c.quality.n,
            "difference": c.quality.difference,
            "low": single if c.quality.low is None else c.quality.low,
            "high": single if c.quality.high is None else c.quality.high,
            "margin": c.quality.margin,
            "p": c.quality_p_holm,
            "p_different": c.different_p_holm,
            "verdict": c.quality_kind,
            "floor": floors.get(c.scale, unknown),
        }
        for c in comparisons
        if c.quality
    ]
    decimals = max((metric_decimals(c.quality.margin) for c in comparisons if c.quality), default=4)
    return Table(
        name=f"{workload}-equivalence",
        title="Is the final metric equivalent?",
        columns=[
            Column(key="scale", label="Scale"),
            Column(key="candidate", label="Variant"),
            Column(key="baseline", label="against"),
            Column(key="n", label="Pairs", unit="count"),
            Column(key="difference", label="Difference", decimals=decimals),
            Column(key="low", label="90% interval from", decimals=decimals),
            Column(key="high", label="to", decimals=decimals),
            Column(key="margin", label="Margin ±", digits=2),
            Column(key="p", label="TOST p", digits=2),
            Column(key="p_different", label="Differs p", digits=2),
            Column(key="verdict", label="Verdict"),
            Column(key="floor", label="Noise floor", decimals=decimals),
        ],
        rows=rows,
        note=(
            "Two one-sided paired tests, and a two-sided one for “different”; p values after "
            "Holm's correction. The noise floor is the mean absolute difference, at equal seed, "
            "between variants of one framework and precision."
        ),
    )
