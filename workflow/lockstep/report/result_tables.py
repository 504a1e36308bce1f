"""Tables of results: comparisons and what differed, runs; of a workload parity, learning, target.

Metrics are means over seeds, times are medians over runs.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from lockstep.parity.compare import held_to
from lockstep.records.load import Records
from lockstep.records.parity_verdict import number
from lockstep.records.record_validation import FAILED
from lockstep.report import statistics
from lockstep.report.comparability import GRAVEST
from lockstep.report.dataframes import Workload, by_variant, ended, finished, timed
from lockstep.report.sentences import metric_decimals, some
from lockstep.report.tables import RUNS, WHO, Absent, Table, table, with_reasons
from lockstep.report.verdicts import Comparison

COMPARED = "workload | Workload\nscale | Scale\ncandidate | Variant\nbaseline | against\n"
UNKNOWN = Absent("no two comparable variants of one framework")


def comparisons(records: Records, found: Sequence[Comparison]) -> dict[str, Table]:
    """Return the numbers of every comparison, in tables by name: no page has room for one."""
    rows, within = [], _within(records, found)
    for c in found:
        problem = next(iter([*c.problems, *c.timing_problems]), None)
        derived = ("kind", "quality_kind", "seeds_needed")
        row = asdict(c) | {name: getattr(c, name) for name in derived}
        row["beside"] = problem or ", ".join(f"{d.label} ({d.fact})" for d in c.flags) or None
        row["within"] = within.get((c.workload, c.scale), UNKNOWN) if c.quality else None
        rows.append(row)
    decimals = max((metric_decimals(c.quality.margin) for c in found if c.quality), default=4)
    frame = pd.json_normalize(rows)
    step_time = table(
        "All comparisons: step time",
        f"""{COMPARED}kind | Step time is
        beside | Forbidden by, or flagged
        step_time.n | Pairs | | d
        step_time.value | Step time, ratio | | 5g
        step_time.low | 95% from | | 5g
        step_time.high | to | | 5g
        step_time.p | p | | 2g
        p_holm | p, Holm | | 2g
        seeds_needed | Seeds for the set precision | | d""",
        frame,
        "Ratios are the variant's time over the other's, paired by seed, with t intervals; below 1 "
        "the variant is faster.",
    )
    whole = table(
        "All comparisons: time to target and whole run",
        f"""{COMPARED}to_target.value | Time to target, ratio | | 5g
        to_target.low | 95% from | | 5g
        to_target.high | to | | 5g
        whole_run.value | Whole run, ratio | | 5g
        whole_run.low | 95% from | | 5g
        whole_run.high | to | | 5g""",
        frame,
        "Without correction and verdict. The ratio of whole runs is of those that did not start "
        "cold.",
    )
    metric = table(
        "All comparisons: final metric",
        f"""{COMPARED}quality_kind | Final metric is
        quality.difference | Difference | | {decimals}f
        quality.low | 90% from | | {decimals}f
        quality.high | to | | {decimals}f
        quality.margin | Margin ± | | 2g
        quality_p_holm | TOST p, Holm | | 2g
        different_p_holm | p of a difference, Holm | | 2g
        within | Within one framework | | {decimals}f
        first_step.largest | Largest difference of losses | | 2g""",
        frame,
        "“Within one framework” is the mean absolute difference of the metric, at equal seed, "
        "between variants of one framework and precision: what rounding within a framework does to "
        "it.",
    )
    return {"comparisons": step_time, "whole-runs": whole, "final-metrics": metric}


def _within(records: Records, found: Sequence[Comparison]) -> dict[tuple[str, str], float]:
    """Return the largest mean absolute difference within a framework, by workload and scale."""
    result: dict[tuple[str, str], float] = {}
    for c in found:
        a, b = (records.study.variant(v) for v in (c.baseline, c.candidate))
        same = (a["framework"], a["precision"]) == (b["framework"], b["precision"])
        if same and c.quality and not c.problems:
            place = (c.workload, c.scale)
            result[place] = max(result.get(place, 0.0), c.quality.distance)
    return result


def contract(found: Sequence[Comparison]) -> Table:
    """Return what differed between compared runs, the gravest first; equal rows are joined."""
    rows: dict[tuple[Any, ...], list[str]] = {}
    for c in found:
        for d in c.differences:
            has, was = (", ".join(map(_short, side)) for side in (d.candidate, d.baseline))
            pairs = f"{d.pairs} of {d.of}"
            row = (d.level, d.fact, c.candidate, has, c.baseline, was, pairs, d.why)
            rows.setdefault(row, []).append(f"{c.workload} at {c.scale}")
    keys = ("level", "fact", "candidate", "is", "baseline", "was", "pairs", "why")
    gravest_first = sorted(rows, key=lambda row: GRAVEST.index(row[0]))
    return table(
        "What differed between compared runs",
        """level | Level
        fact | Fact
        candidate | Variant
        is | has
        baseline | The other
        was | has
        pairs | Pairs
        why | Assessment
        where | Where""",
        [{**dict(zip(keys, row)), "where": some(rows[row])} for row in gravest_first],
        "Declared: a variant says so, it is what is compared. Flagged: undeclared, stands beside "
        "the verdict. Not comparable: takes the verdict away. Facts that only one framework has "
        "are not listed between frameworks.",
    )


def _short(value: str) -> str:
    return value[:12] + "…" if len(value) == 64 else value


def runs(frame: pd.DataFrame) -> Table:
    """Return one row for each run, whatever became of it."""
    unmet = frame["target_reached"].eq(False)
    values = frame.assign(target_seconds=frame["target_seconds"].mask(unmet))
    values = with_reasons(values, "target_seconds", unmet.map({True: "not met"}))
    values = with_reasons(values, "step_median", frame["step_absent"])
    return table(
        "All runs",
        """workload | Workload
        variant | Variant
        scale | Scale
        seed | Seed | | d
        status | Status
        reason | Reason
        step_median | Step, median | ms | 4g
        disturbed | Disturbed windows | | d
        total | Whole run | s | 1f
        metric | Final metric | | 4f
        target_seconds | Training to target | s | 3g
        cache | Cache
        attempts | Starts | | d""",
        values,
    )


# Of one workload ------------------------------------------------------------------------------


def parity(view: Workload) -> Table | None:
    """Return the ladder: measured distance from the reference on every rung."""
    verdict = view.records.parity.get(view.name)
    if verdict is None:
        return None
    rows = []
    for variant, comparison in verdict["comparisons"].items():
        for rung in comparison["rungs"]:
            value, at, allowed = (rung[k] for k in ("value", "worst", "tolerance"))
            if not rung["passed"]:
                value, at, allowed = rung["first_value"], rung["first"], held_to(rung)
            row = {"variant": variant, "precision": rung["precision"], "rung": rung["name"]}
            row |= {"value": number(value), "at": at, "tolerance": number(allowed)}
            rows.append({**row, "passed": "✓ PASS" if rung["passed"] else "✗ FAIL"})
    return table(
        f"Parity ladder: relative difference from {verdict['reference']}",
        """precision | Precision
        rung | Rung
        variant | Variant
        value | Difference | | 2g
        tolerance | Tolerance | | 2g
        passed | Verdict
        at | where largest""",
        rows,
        "Relative L2 difference per tensor, and per step for losses. A tolerance of 0 means "
        "equal to the bit. In float32 the steps and the final state may also differ by 10 "
        "times what a change of the weights by one unit in the last place causes.",
    )


def epochs(view: Workload) -> Table:
    """Return training loss and test metric by epoch, means over runs."""
    grouped = by_variant(view.epochs, "epoch")
    rows = grouped[["train_loss", "metric", "wall_seconds"]].mean().assign(n=grouped.size())
    return table(
        "Loss and metric by epoch",
        f"""{WHO}epoch | Epoch | | d
        {RUNS}train_loss | Training loss | | 4f
        metric | Test {view.metric} | | 4f
        wall_seconds | Since the start of the process | s | 4g""",
        rows.reset_index().assign(epoch=lambda rows: rows["epoch"] + 1),
        "Means over runs.",
    )


def final_metric(view: Workload) -> Table:
    """Return the final metric: mean over seeds, its interval, and its spread."""
    names = {"n": "size", "mean": "mean", "sd": "std", "lowest": "min", "highest": "max"}
    known = finished(view.runs).dropna(subset=["metric"])
    rows = by_variant(known)["metric"].agg(**names).reset_index()
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
    rows = []
    for (scale, variant), group in by_variant(ended(view.runs)):
        counted = timed(group)
        few = Absent("fewer than half of the runs met the target")
        if counted.empty:
            few = Absent(group["busy"].iloc[0])
        times, reached = to_target(counted)
        wall = counted["target_wall"].to_numpy(dtype=float)  # NaN where it was not met
        known = np.isfinite(wall)
        training = statistics.censored_median(times, reached)
        whole = statistics.censored_median(np.where(known, wall, np.inf), known)
        rows.append(
            {
                "scale": scale,
                "variant": variant,
                "n": len(group),
                "reached": group["target_reached"].eq(True).sum(),
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
        "Medians by Kaplan and Meier (1958), read at the end of epochs: runs that never met the "
        "target are censored, those that failed or were killed after all others. With preparation "
        "and evaluation means from the start of the process, as MLPerf counts. Times of runs that "
        "other programs disturbed do not count.",
    )


def to_target(group: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return training times ``(n,)`` and whether the target was met then ``(n,)``."""
    reached = group["target_reached"].eq(True).to_numpy(dtype=bool)  # unknown where one was killed
    times = group["target_seconds"].to_numpy(dtype=float).copy()
    times[~reached & (group["status"] == FAILED).to_numpy()] = np.nanmax([0.0, *times])
    return times, reached
