"""Tables of what is learned: parity, losses, final metric, time to target.

Metrics are means over seeds, times are medians over runs.
"""

from typing import Any

import numpy as np
import pandas as pd

from lockstep.report import dataframes, statistics
from lockstep.report.dataframes import View, who
from lockstep.report.load import FAILED, Records
from lockstep.report.tables import RUNS, WHO, Absent, Table, table

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
    columns = "precision | Precision\nrung | Rung\ntolerance | Tolerance | | 2g\n"
    for variant in variants:
        columns += f"{variant} | {variant}\n{variant} at | where largest\n"
    return table(
        f"{workload}-parity",
        f"Parity ladder: relative distance from {verdict['reference']}",
        columns,
        list(rows.values()),
        "Relative L2 distance per tensor, and per step for losses. A tolerance of 0 means "
        "equal to the bit. In float32 the steps and the final state may also differ by 10 "
        "times what a change of the weights by one unit in the last place causes.",
    )


def layers(records: Records, workload: str) -> Table | None:
    """Return how far each layer's output is from the reference's, in the order of the network.

    None if the verdict holds no layers.
    """
    verdict = records.parity.get(workload) or {"comparisons": {}}
    rows: dict[str, dict[str, Any]] = {}
    columns = ""
    for variant, comparison in verdict["comparisons"].items():
        found = comparison.get("layers")
        found = [x for x in found if isinstance(x, dict)] if isinstance(found, list) else []
        for precision in ("float64", "float32") if found else ():
            columns += f"{variant} {precision} | {variant}, {precision} | | 2g\n"
            for layer in found:
                row = rows.setdefault(str(layer.get("name")), {"layer": str(layer.get("name"))})
                row[f"{variant} {precision}"] = layer.get(precision)
    if not columns:
        return None
    return table(
        f"{workload}-layers",
        f"Layer by layer: relative distance of outputs from {verdict['reference']}",
        f"layer | Layer\n{columns}",
        list(rows.values()),
        "Outputs of the forward pass for the first batch, in the order of the network.",
    )


def _distance(value: Any) -> str:
    return f"{value:.1e}" if isinstance(value, (int, float)) and value else str(value or 0)


def _float(value: Any) -> float:
    return float("inf") if value == "infinity" else float(value)


def losses(view: View) -> Table:
    """Return training loss by epoch, side by side, mean over seeds, at the first scale."""
    scale = view.records.study.config["scales"][0]
    chosen = view.epochs[view.epochs["scale"] == scale]
    means = chosen.groupby(["epoch", "variant"])["train_loss"].mean().unstack("variant")
    variants = [v for v in view.records.study.config["variants"] if v in means]
    copied = copied_series(view.records, view.name) or ()
    rows = [
        {"epoch": int(epoch) + 1, **values[variants], "copied": copied[epoch : epoch + 1]}
        for epoch, values in means.iterrows()
    ]
    for row in rows:
        row["copied"] = next(iter(row["copied"]), None)
    seeds = chosen.groupby("variant")["seed"].nunique()
    label = "The widely copied table (its code does not run)"
    return table(
        f"{view.name}-losses",
        "Training loss by epoch",
        "epoch | Epoch | | d\n"
        + "".join(f"{v} | {v} | | 4f\n" for v in variants)
        + (f"copied | {label} | | 3f\n" if copied else ""),
        rows,
        f"Mean over seeds at scale {scale}; seeds: "
        f"{', '.join(f'{v} {seeds[v]}' for v in variants) or 'none'}.",
    )


def copied_series(records: Records, workload: str) -> tuple[float, ...] | None:
    """Return the widely copied losses if this is the recipe that they are printed for."""
    recipe = records.study.workload(workload)
    source = records.study.config["datasets"][recipe["dataset"]]["source"]
    same = all(recipe[k] == v for k, v in COPIED_RECIPE.items())
    same &= all(recipe["optimizer"][k] == v for k, v in COPIED_OPTIMIZER.items())
    return COPIED if same and source == "mnist" and not recipe["max_steps"] else None


def final_metric(view: View) -> Table:
    """Return the final metric: mean over seeds, its interval, and its spread."""
    rows = []
    for scale, variant, group in view.groups():
        if not len(group) or group["metric"].isna().all():
            continue
        values = group["metric"].to_numpy(dtype=float)
        mean, *ends = statistics.mean_interval(values)
        one = Absent(reason="one seed gives no interval")
        low, high = (one if end is None else end for end in ends)
        spread = {"mean": mean, "low": low, "high": high, "lowest": values.min()}
        sd = values.std(ddof=1) if len(values) > 1 else None
        rows.append(who(scale, variant, group, **spread, highest=values.max(), sd=sd))
    return table(
        f"{view.name}-final-metric",
        f"Final test {view.recipe['target']['metric'].replace('_', ' ')}",
        f"""{WHO}{RUNS}
        mean | Mean | | 4f
        low | 95% interval from | | 4f
        high | to | | 4f
        sd | Standard deviation over seeds | | 4f
        lowest | Lowest | | 4f
        highest | Highest | | 4f""",
        rows,
        "t interval of the mean over seeds.",
    )


def target(view: View) -> Table:
    """Return times to the target; runs that never met it are censored, not dropped.

    A run that diverged or was killed never meets it either: it is censored later than all that did.
    """
    goal, rows = view.recipe["target"], []
    for scale, variant, group in view.groups(dataframes.ended):
        if not len(group):
            continue
        times, reached = to_target(group)
        median = statistics.censored_median(times, reached)
        few = Absent(reason="fewer than half of the runs met the target")
        wall = group["target_wall"].to_numpy(dtype=float)
        later = np.where(reached & np.isfinite(wall), wall, np.inf)
        whole = float(np.sort(later)[(len(later) - 1) // 2])
        rows.append(
            who(
                scale,
                variant,
                group,
                reached=int(reached.sum()),
                failed=int((group["status"] == FAILED).sum()),
                median=few if median is None else median,
                wall=whole if np.isfinite(whole) else few,
                fastest=float(times[reached].min()) if reached.any() else None,
                slowest=float(times.max()) or Absent(reason="no run has a time"),
                slowest_is="met" if reached[times == times.max()].all() else "censored: not met",
            )
        )
    return table(
        f"{view.name}-time-to-target",
        f"Time to a test {goal['metric']} of {goal['value']:g}",
        f"""{WHO}{RUNS}
        reached | Met it | | d
        failed | Failed | | d
        median | Training alone, median | s | 4g
        wall | With preparation and evaluation, median | s | 4g
        fastest | Training alone, fastest | s | 4g
        slowest | Training alone, slowest | s | 4g
        slowest_is | The slowest""",
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
