"""Tables of time and means: steps, parts of a run, preparation, break-even, memory, arithmetic.

A run counts once; times are medians over runs unless a note says otherwise.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lockstep.report import dataframes
from lockstep.report.dataframes import View, medians, warm, who
from lockstep.report.tables import RUNS, WHO, Absent, Table, table
from lockstep.report.verdicts import NOT_COMPARABLE, Comparison

START = "start | Start\n"

SPLIT = {
    "import": "Import",
    "staging": "Staging",
    "trace": "Trace",
    "compile": "Compile",
    "first_window": "First window",
    "steady": "Steady training",
    "data_wait": "Data wait",
    "evaluation": "Evaluation",
    "checkpoint": "Checkpoint",
}
"""Parts of a run that add up to its time, in the order in which they first happen."""

COLD, WARM, NOTHING = "cold", "warm", "nothing to compile"


def step_times(view: View) -> Table:
    """Return step time and throughput in the steady state."""
    names = ("step_median", "step_q1", "step_q3", "step_p95", "examples_per_second")
    rows = []
    for scale, variant, group in view.groups():
        timed = group.dropna(subset=["step_median"])
        row = who(scale, variant, group)
        if len(timed):
            row |= medians(timed, (*names, "data_wait_fraction"))
            row["disturbed"] = int(timed["disturbed"].sum())
        else:
            here = (view.runs["scale"] == scale) & (view.runs["variant"] == variant)
            why = view.runs.loc[here, "step_absent"].dropna().tolist()
            row["step_median"] = Absent(reason=str(next(iter(why), "no run finished")))
        rows.append(row)
    return table(
        f"{view.name}-step-time",
        "Step time and throughput, steady state",
        f"""{WHO}{RUNS}
        step_median | Median | ms | 4g
        step_q1 | Quartile 1 | ms | 4g
        step_q3 | Quartile 3 | ms | 4g
        step_p95 | 95th percentile | ms | 4g
        examples_per_second | Throughput | examples/s | 0f
        data_wait_fraction | Waiting for data | % | 1f
        disturbed | Disturbed windows, left out | | d""",
        rows,
        "Every window but the first of each start and those during which other programs used the "
        "run's CPU cores. Each figure is taken over the steps of a run, then its median over runs. "
        "Throughput is examples over seconds of these windows.",
    )


def time_split(view: View) -> Table:
    """Return where the time of a run goes, from process start to its end; cold starts apart."""
    rows = []
    for scale, variant, group in view.groups():
        for start, part in ((WARM, warm(group)), (COLD, group[group["cache"] == COLD])):
            if len(part):
                parts = {key: float(part[key].mean()) for key in SPLIT}
                rows.append(who(scale, variant, part, start=start, **parts))
                rows[-1]["total"] = sum(parts.values())
    return table(
        f"{view.name}-time-split",
        "Parts of a run",
        WHO
        + START
        + RUNS
        + "".join(f"{k} | {label} | s | 2f\n" for k, label in SPLIT.items())
        + "total | Whole run | s | 2f",
        rows,
        "Mean over runs, so that the parts add up.",
    )


def preparation(view: View) -> Table:
    """Return what it takes until training is steady, with cold and warm starts apart."""
    rows = []
    for scale, variant, group in view.groups():
        here = (view.cold["scale"] == scale) & (view.cold["variant"] == variant)
        for start, part in ((COLD, view.cold[here]), (WARM, warm(group))):
            if len(part):
                empty = start == WARM and set(part["cache"]) == {"none"}
                parts = medians(part, ("import", *dataframes.COLD_PARTS))
                word = NOTHING if empty else start
                rows.append(who(scale, variant, part, start=word, **parts))
    return table(
        f"{view.name}-preparation",
        "Before training is steady: cold and warm starts",
        f"""{WHO}{START}{RUNS}
        import | Import | s | 2f
        trace | Trace | s | 2f
        compile | Compile or first use | s | 2f
        first_window | First window | s | 2f""",
        rows,
        "Medians over runs. A cold start finds an empty compilation cache, a warm one what an "
        "earlier run compiled.",
    )


def break_even(view: View) -> Table:
    """Return after how many steps a longer cold start has paid for itself.

    steps = (preparation of one - preparation of the other) / (step of the other - step of one).
    """
    chosen = {(scale, variant): group for scale, variant, group in view.groups()}
    rows = []
    for c in view.comparisons:
        sides = [(v, chosen[c.scale, v]) for v in (c.baseline, c.candidate)]
        compiles = any(set(group["cache"]) - {"none"} for _, group in sides)
        if c.kind != NOT_COMPARABLE and compiles and all(len(group) for _, group in sides):
            rows.append(_break_even(c, sides, view.cold[view.cold["scale"] == c.scale]))
    return table(
        f"{view.name}-break-even",
        "Break-even between a cold start and step time",
        """scale | Scale
        longer | Prepares longer
        shorter | than
        preparation | by | s | 2f
        saved | Saves per step | ms | 3g
        steps | Break-even | steps | 0f""",
        rows,
        "Difference in trace and compile time of cold starts over the difference in median step "
        "time (medians over runs). Where the verdict detects no difference in step time, this "
        "number means nothing.",
    )


def _break_even(
    c: Comparison, sides: Sequence[tuple[str, pd.DataFrame]], cold: pd.DataFrame
) -> dict[str, Any]:
    spent, step = [], []
    for variant, group in sides:
        starts = cold[cold["variant"] == variant]
        if set(group["cache"]) == {"none"}:
            starts = group
        if not len(starts):
            why = Absent(reason=f"no cold start of {variant} was measured")
            row = {"scale": c.scale, "longer": c.candidate, "shorter": c.baseline}
            return row | dict.fromkeys(("preparation", "saved", "steps"), why)
        spent.append(float((starts["trace"] + starts["compile"]).median()))
        step.append(float(group["step_median"].median()))
    long, short = (1, 0) if spent[1] >= spent[0] else (0, 1)
    more, saved = spent[long] - spent[short], step[short] - step[long]
    steps: Any = more / saved if saved > 0 else "never: its steps are not shorter"
    return {
        "scale": c.scale,
        "longer": sides[long][0],
        "shorter": sides[short][0],
        "preparation": more,
        "saved": saved,
        "steps": Absent(reason="a step time is absent") if math.isnan(saved) else steps,
    }


# What it takes --------------------------------------------------------------------------------


def resources(view: View) -> Table:
    """Return memory, arithmetic, energy and cost."""
    device: dict[str, Any] = {"peak_flops": {}, "price_per_hour": None, "currency": ""}
    device |= view.records.study.config.get("report", {}).get("device", {})
    unmet = Absent(reason="not every run met the target")
    rows = []
    for scale, variant, group in view.groups():
        if not len(group):
            continue
        row = who(scale, variant, group)
        for key in ("rss", "allocated", "reserved", "planned", "flops_per_second", "energy"):
            known = group[key].dropna()
            why = Absent(reason=dataframes.reason(group, key))
            row[key] = float(known.median()) if len(known) else why
        row["example_energy"] = row["target_energy"] = row["energy"]
        met = bool(group["target_reached"].eq(True).all())
        if not isinstance(row["energy"], Absent):
            examples = group["steps"] * group["global_batch"]
            row["example_energy"] = float((group["energy"] / examples).median())
            until = group["energy"] * group["target_seconds"] / group["training"]
            row["target_energy"] = float(until.median()) if met else unmet
        busy = group["step_median"] * group["devices"] / group["global_batch"]
        row["device_seconds"] = float(busy.median()) * 1e6
        precision = view.records.study.variant(variant)["precision"]
        peak, price = device["peak_flops"].get(precision), device["price_per_hour"]
        stated = "the config does not state report.device."
        row["mfu"] = Absent(reason=f"{stated}peak_flops.{precision}")
        if peak:
            rates = group["flops_per_second"] / (peak * group["devices"])
            row["mfu"] = float(rates.median())
        row["cost"] = row["target_cost"] = Absent(reason=f"{stated}price_per_hour")
        if price:
            row["cost"] = row["device_seconds"] * price / 3600
            spent = (group["target_seconds"] * group["devices"]).median() * price / 3600
            row["target_cost"] = float(spent) if met else unmet
        rows.append(row)
    currency = device["currency"]
    return table(
        f"{view.name}-resources",
        "Memory, arithmetic, energy, cost",
        f"""{WHO}{RUNS}
        rss | Peak resident memory | MB | 0f
        allocated | Device, allocated | MB | 0f
        reserved | Device, reserved | MB | 0f
        planned | Planned by the compiler | MB | 1f
        flops_per_second | Arithmetic | GFLOP/s | 3g
        mfu | MFU | % | 1f
        energy | Energy | J | 3g
        example_energy | Energy per example | mJ | 3g
        target_energy | Energy to target | J | 3g
        device_seconds | Device time | s per million examples | 3g
        cost | Cost | {currency} per million examples | 3g
        target_cost | Cost to target | {currency} | 3g""",
        rows,
        f"Medians over runs. Arithmetic: {_formula(view)}. MFU is arithmetic over the peak of the "
        "devices at the precision used, which the config states; its seconds are those of "
        "training, with the first windows and waiting for data. Energy to the target is a run's "
        "energy in the share of its training time until then. Cost is device time in training at "
        "the config's price.",
    )


def _formula(view: View) -> str:
    for run in view.records.runs:
        if run.workload == view.name and run.summary:
            return str((run.summary.get("flops") or {}).get("formula", "formula not stated"))
    return "no run gives its formula"
