"""Tables of what one workload takes: step times, parts of a run, break-even, scaling, resources.

A run counts once; times are medians over runs unless a note says otherwise.
"""

import math
import re
from typing import Any

import numpy as np
import pandas as pd

from lockstep.records.run_facts import facts_of
from lockstep.report import comparability
from lockstep.report.comparability import BLOCKS, FLAGGED, difference_text
from lockstep.report.dataframes import RESOURCES, SPLIT, STEP, Workload, by_variant, finished
from lockstep.report.tables import RUNS, WHO, Absent, Table, table, with_reasons
from lockstep.report.verdicts import NOT_COMPARABLE
from lockstep.training.rates import FLOPS_FORMULA


def step_times(view: Workload) -> Table:
    """Return step time and throughput in the steady state."""
    grouped = by_variant(finished(view.runs))
    rows = grouped[[*STEP, "data_wait_fraction"]].median()
    counts = {"n": ("seed", "size"), "disturbed": ("disturbed", "sum")}
    rows = rows.join(grouped.agg(**counts, why=("step_absent", "first"))).reset_index()
    return table(
        "Step time and throughput, steady state",
        f"""{WHO}{RUNS}
        step_median | Median | ms | 4g
        step_q1 | Quartile 1 | ms | 4g
        step_q3 | Quartile 3 | ms | 4g
        step_p95 | 95th percentile | ms | 4g
        throughput | Throughput | {view.unit}/s | 0f
        data_wait_fraction | Waiting for data | % | 1f
        disturbed | Disturbed windows, left out | | d""",
        with_reasons(rows, "step_median", rows["why"]),
        "Each figure is taken over the steps of a run in the windows that count, then its median "
        f"over runs. Throughput is {view.unit} over seconds of these windows.",
    )


def time_split(view: Workload) -> Table:
    """Return where the time of a run goes, from its start to its end; cold starts separately."""
    runs = finished(view.runs)
    runs = runs.assign(start=runs["cache"].replace("none", "nothing to compile"))
    grouped = by_variant(pd.concat([runs, view.cold.assign(start="cold, measured apart")]), "start")
    means = grouped[[*SPLIT]].mean()
    return table(
        "Parts of a run",
        f"{WHO}start | Start\n{RUNS}"
        + "".join(f"{k} | {k.replace('_', ' ').capitalize()} | s | 2f\n" for k in SPLIT)
        + "total | Whole run | s | 2f",
        means.assign(total=means.sum(axis=1, skipna=False), n=grouped.size()).reset_index(),
        "Mean over runs, so that the parts add up. A cold start finds an empty compilation cache, "
        "a warm one what an earlier run compiled. A cold start that was measured apart ends with "
        "its first window.",
    )


def break_even(view: Workload) -> Table:
    """Return after how many steps a longer cold start has paid for itself.

    steps = (preparation of one - preparation of the other) / (step of the other - step of one).
    """
    runs = finished(view.runs)
    starts = pd.concat([view.cold, runs[runs["cache"] == "none"]])  # the latter compile nothing
    spent = by_variant(starts.assign(spent=starts["trace"] + starts["compile"]))["spent"].median()
    step = by_variant(runs)["step_median"].median()
    compiling = set(by_variant(runs[runs["cache"] != "none"]).groups)
    rows = []
    for c in view.comparisons:
        sides = [(c.scale, variant) for variant in (c.baseline, c.candidate)]
        known = all(side in step.index for side in sides) and compiling.intersection(sides)
        if c.kind == NOT_COMPARABLE or not known:
            continue
        row: dict[str, Any] = {"scale": c.scale, "longer": c.candidate, "shorter": c.baseline}
        if unmeasured := [side[1] for side in sides if side not in spent]:
            row["steps"] = Absent(f"no cold start of {unmeasured[0]} was measured")
        else:
            short, long = sorted(sides, key=lambda side: spent[side])
            more, saved = spent[long] - spent[short], step[short] - step[long]
            steps = more / saved if saved > 0 else "never: its steps are not shorter"
            row |= {"longer": long[1], "shorter": short[1], "preparation": more, "saved": saved}
            row["steps"] = Absent("a step time is absent") if np.isnan(saved) else steps
        rows.append(row)
    return table(
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


# Scaling and resources ------------------------------------------------------------------------

EXPECTED = re.compile(
    r"topology\.(devices|examples)|host\.node|gpu\.units|engine\.(devices|backend)|cache"
)
"""Facts that another scale has of necessity, or that touch compilation alone."""


def scaling(view: Workload) -> Table | None:
    """Return strong-scaling efficiency; None if there is one scale.

    efficiency = (throughput / throughput at the smallest scale) / (devices / devices there).
    """
    if len(view.records.study.config["scales"]) < 2:
        return None
    rows = []
    timed = finished(view.runs).dropna(subset=["throughput"])
    for variant, runs in timed.groupby("variant", observed=True):
        rates = runs.groupby(["devices", "scale"], observed=True)["throughput"]
        found = rates.agg(["median", "size"])
        (few, base), slow = found.index[0], found["median"].iloc[0]
        for (devices, scale), rate, n in found.itertuples():
            forbidden, flags = _difference(view, variant, base, scale)
            row = {"scale": scale, "variant": variant, "n": n, "devices": devices}
            row |= {"throughput": rate, "flags": flags}
            row["speedup"] = forbidden or rate / slow
            row["efficiency"] = forbidden or rate / slow / (devices / few)
            rows.append(row)
    return table(
        "Strong scaling: the same global batch over more devices",
        f"""{WHO}{RUNS}
        devices | Devices | | d
        throughput | Throughput | {view.unit}/s | 0f
        speedup | Speed-up | × | 2f
        efficiency | Efficiency | % | 0f
        flags | Flagged between the scales""",
        rows,
        "Medians over runs, against a variant's smallest scale. Efficiency is absent where the "
        "scales ran on unequal resources.",
    )


def _difference(view: Workload, variant: str, *scales: str) -> tuple[Absent | None, str | None]:
    """Return why two scales of a variant must not be compared, if so, and what else differed."""
    sides = (view.records.by_side[view.name, variant, scale].items() for scale in scales)
    a, b = ({seed: facts_of(run) for seed, run in side if run.counts} for side in sides)
    pairs = [(a[seed], b[seed]) for seed in a.keys() & b.keys()]
    if not pairs:
        return Absent("no seed finished at both scales"), None
    found = [d for d in comparability.diff(pairs) if not EXPECTED.match(d.fact)]
    grave = [difference_text(d) for d in found if d.level == BLOCKS]
    flags = [difference_text(d) for d in found if d.level == FLAGGED]
    return (Absent(grave[0]) if grave else None), "; ".join(flags) or None


def resources(view: Workload) -> Table:
    """Return memory, arithmetic, energy and cost: what follows of each run, medians over runs."""
    study, runs = view.records.study, finished(view.runs)
    device = study.config["report"]["device"]
    price = device["price_per_hour"] or math.nan
    precision = {name: study.variant(name)["precision"] for name in study.config["variants"]}
    peaks = runs["variant"].astype(str).map(precision).map(device["peak_flops"]).astype(float)
    spent = runs["step_median"] * runs["devices"] / runs["global_batch"] * 1e6
    # Where a run of a variant did not meet the target, the others do not speak for it.
    met = by_variant(runs)["target_reached"].transform(lambda reached: reached.eq(True).all())
    until = runs["target_seconds"].where(met.astype(bool))
    derived = {
        "example_energy": runs["energy"] / (runs["steps"] * runs["global_batch"]),
        "target_energy": runs["energy"] * until / runs["training"],
        "device_seconds": spent,
        "mfu": runs["flops_per_second"] / runs["devices"] / peaks,
        "cost": spent * price / 3600,
        "target_cost": until * runs["devices"] * price / 3600,
    }
    grouped = by_variant(runs.assign(**derived))
    rows = grouped[[*RESOURCES, *derived]].median().assign(n=grouped.size()).reset_index()
    absent: dict[str, Any] = {name: grouped[f"{name}_absent"].first() for name in RESOURCES}
    stated, unmet = "the config does not state report.device.", "not every run met the target"
    absent["mfu"] = f"{stated}peak_flops." + rows["variant"].map(precision).astype(str)
    absent["cost"] = f"{stated}price_per_hour"
    absent["target_cost"] = unmet if device["price_per_hour"] else absent["cost"]
    absent["example_energy"] = absent["energy"]
    absent["target_energy"] = absent["energy"].fillna(unmet)
    for column, reasons in absent.items():
        rows = with_reasons(rows, column, reasons)
    return table(
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
        cost | Cost | {device["currency"]} per million examples | 3g
        target_cost | Cost to target | {device["currency"]} | 3g""",
        rows,
        f"Medians over runs. Arithmetic: {FLOPS_FORMULA}. MFU, model "
        "FLOPs utilization, is arithmetic over the peak of the devices at the precision used, "
        "which the config states; its seconds are those of training, with the first windows and "
        "waiting for data. Energy to the target is a run's energy in the share of its training "
        "time until then. Cost is device time in training at the config's price.",
    )
