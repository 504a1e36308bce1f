"""Tables of time and means: steps, parts of a run, preparation, break-even, memory, arithmetic.

A run counts once; times are medians over runs unless the table says otherwise.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from lockstep.report import frames
from lockstep.report.columns import WHO, N, groups
from lockstep.report.load import Records
from lockstep.report.tables import Absent, Column, Table
from lockstep.report.verdicts import NOT_COMPARABLE, Comparison


def step_times(records: Records, workload: str, runs: pd.DataFrame) -> Table:
    """Return step time and throughput in the steady state."""
    rows = []
    for scale, variant, group in groups(records, runs):
        row: dict[str, Any] = {"scale": scale, "variant": variant, "n": len(group)}
        timed = group[group["step_median"].notna()] if len(group) else group
        if len(timed):
            names = ("step_median", "step_q1", "step_q3", "step_p95")
            row |= {name: float(timed[name].median()) for name in names}
            row |= {
                "examples_per_second": float(timed["examples_per_second"].median()),
                "data_wait_fraction": float(timed["data_wait_fraction"].median()),
                "disturbed": int(timed["disturbed"].sum()),
            }
        else:
            row["step_median"] = Absent(reason=_why_empty(records, workload, scale, variant, runs))
        rows.append(row)
    return Table(
        name=f"{workload}-step-time",
        title="Step time and throughput, steady state",
        columns=[
            *WHO,
            N,
            Column(key="step_median", label="Median", unit="ms", digits=4, scale=1e3),
            Column(key="step_q1", label="Quartile 1", unit="ms", digits=4, scale=1e3),
            Column(key="step_q3", label="Quartile 3", unit="ms", digits=4, scale=1e3),
            Column(key="step_p95", label="95th percentile", unit="ms", digits=4, scale=1e3),
            Column(key="examples_per_second", label="Throughput", unit="examples/s", decimals=0),
            Column(
                key="data_wait_fraction", label="Waiting for data", unit="%", decimals=1, scale=100
            ),
            Column(key="disturbed", label="Disturbed windows, left out", unit="count"),
        ],
        rows=rows,
        note=(
            "Every window but the first of each start and those during which other programs used "
            "the run's CPU cores. Each figure is taken over the steps of a run, then its median "
            "over runs. Throughput is examples over seconds of these windows."
        ),
    )


def _why_empty(
    records: Records, workload: str, scale: str, variant: str, runs: pd.DataFrame
) -> str:
    mine = runs[(runs["scale"] == scale) & (runs["variant"] == variant)]
    absent = mine["step_absent"].dropna().tolist() if "step_absent" in mine else []
    if absent:
        return str(absent[0])
    return "no run finished"


SPLIT = (
    ("import", "Import"),
    ("staging", "Staging"),
    ("trace", "Trace"),
    ("compile", "Compile"),
    ("first_window", "First window"),
    ("steady", "Steady training"),
    ("data_wait", "Data wait"),
    ("evaluation", "Evaluation"),
    ("checkpoint", "Checkpoint"),
)
"""Parts of a run that add up to its time, in the order in which they first happen."""


def time_split(records: Records, workload: str, runs: pd.DataFrame) -> Table:
    """Return where the time of a run goes, from process start to its end; cold starts apart."""
    rows = []
    for scale, variant, group in groups(records, runs):
        for start, part in _by_start(group):
            parts = {key: float(part[key].mean()) for key, _ in SPLIT}
            row = {"scale": scale, "variant": variant, "start": start, "n": len(part), **parts}
            rows.append(row | {"total": sum(parts.values())})
    return Table(
        name=f"{workload}-time-split",
        title="Parts of a run",
        columns=[
            *WHO,
            START,
            N,
            *(Column(key=k, label=label, unit="s", decimals=2) for k, label in SPLIT),
            Column(key="total", label="Whole run", unit="s", decimals=2),
        ],
        rows=rows,
        note="Mean over runs, so that the parts add up.",
    )


START = Column(key="start", label="Start")
COLD, WARM = "cold", "warm"


def _by_start(group: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the runs that started warm or compile nothing, then those that started cold."""
    if len(group):
        warm = frames.warm(group)
        cold = group.drop(warm.index)
        yield from ((start, part) for start, part in ((WARM, warm), (COLD, cold)) if len(part))


def cold_starts(records: Records, workload: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Return all cold starts of a workload: those measured on purpose, and runs that were cold."""
    measured = frames.cold_starts(records)
    cold = frames.finished(runs)
    cold = cold[cold["cache"] == COLD] if "cache" in cold else cold.iloc[:0]
    names = list(measured.columns)
    found = pd.concat([measured[measured["workload"] == workload], cold.reindex(columns=names)])
    return found.astype(dict.fromkeys(frames.COLD_PARTS, float))


def preparation(records: Records, workload: str, runs: pd.DataFrame) -> Table:
    """Return what it takes until training is steady, with cold and warm starts apart."""
    rows = []
    cold = cold_starts(records, workload, runs)
    for scale, variant, group in groups(records, runs):
        here = cold[(cold["scale"] == scale) & (cold["variant"] == variant)]
        warm = frames.warm(group)
        for start, part in ((COLD, here), (WARM, warm)):
            if not len(part):
                continue
            row = {"scale": scale, "variant": variant, "start": start, "n": len(part)}
            if start == WARM and set(part["cache"]) == {"none"}:
                row["start"] = "nothing to compile"
            for key in ("import", *frames.COLD_PARTS):
                row[key] = float(part[key].median()) if key in part else None
            rows.append(row)
    return Table(
        name=f"{workload}-preparation",
        title="Before training is steady: cold and warm starts",
        columns=[
            *WHO,
            START,
            N,
            Column(key="import", label="Import", unit="s", decimals=2),
            Column(key="trace", label="Trace", unit="s", decimals=2),
            Column(key="compile", label="Compile or first use", unit="s", decimals=2),
            Column(key="first_window", label="First window", unit="s", decimals=2),
        ],
        rows=rows,
        note=(
            "Medians over runs. A cold start finds an empty compilation cache, a warm one what an "
            "earlier run compiled."
        ),
    )


def break_even(
    records: Records, workload: str, runs: pd.DataFrame, comparisons: Sequence[Comparison]
) -> Table:
    """Return after how many steps a longer cold start has paid for itself.

    steps = (preparation of one - preparation of the other) / (step of the other - step of one).
    """
    chosen = {(s, v): g for s, v, g in groups(records, runs)}
    cold = cold_starts(records, workload, runs)
    rows = []
    for c in comparisons:
        a, b = chosen[c.scale, c.baseline], chosen[c.scale, c.candidate]
        compiled = [v for v, g in ((c.baseline, a), (c.candidate, b)) if set(g["cache"]) - {"none"}]
        if c.kind == NOT_COMPARABLE or not len(a) or not len(b) or not compiled:
            continue
        rows.append(_break_even(c, a, b, cold[cold["scale"] == c.scale]))
    return Table(
        name=f"{workload}-break-even",
        title="Break-even between a cold start and step time",
        columns=[
            Column(key="scale", label="Scale"),
            Column(key="longer", label="Prepares longer"),
            Column(key="shorter", label="than"),
            Column(key="preparation", label="by", unit="s", decimals=2),
            Column(key="saved", label="Saves a step", unit="ms", digits=3, scale=1e3),
            Column(key="steps", label="Break-even", unit="steps", decimals=0),
        ],
        rows=rows,
        note=(
            "Difference in trace and compile time of cold starts over the difference in median "
            "step time (medians over runs). Where the verdict detects no difference in step time, "
            "this number means nothing."
        ),
    )


def _break_even(
    c: Comparison, a: pd.DataFrame, b: pd.DataFrame, cold: pd.DataFrame
) -> dict[str, Any]:
    row: dict[str, Any] = {"scale": c.scale, "longer": c.candidate, "shorter": c.baseline}
    spent = []
    for variant, group in ((c.baseline, a), (c.candidate, b)):
        starts = cold[cold["variant"] == variant]
        compiles = bool(set(group["cache"]) - {"none"})
        if compiles and not len(starts):
            why = Absent(reason=f"no cold start of {variant} was measured")
            return row | {"preparation": why, "saved": why, "steps": why}
        starts = starts if compiles else group
        spent.append(float((starts["trace"] + starts["compile"]).median()))
    more = spent[1] - spent[0]
    saved = float(a["step_median"].median() - b["step_median"].median())
    if more < 0:
        row |= {"longer": c.baseline, "shorter": c.candidate}
        more, saved = -more, -saved
    steps: Any = more / saved if saved > 0 else "never: its steps are not shorter"
    if math.isnan(saved):
        steps = Absent(reason="a step time is absent")
    return row | {"preparation": more, "saved": saved, "steps": steps}


def resources(records: Records, workload: str, runs: pd.DataFrame) -> Table:
    """Return memory, arithmetic, energy and cost."""
    device: dict[str, Any] = {"peak_flops": {}, "price_per_hour": None, "currency": ""}
    device |= records.study.config.get("report", {}).get("device", {})
    rows = []
    for scale, variant, group in groups(records, runs):
        if not len(group):
            continue
        row: dict[str, Any] = {"scale": scale, "variant": variant, "n": len(group)}
        for key in ("rss", "allocated", "reserved", "planned", "flops_per_second", "energy"):
            known = group[key].dropna()
            row[key] = (
                float(known.median()) if len(known) else Absent(reason=frames.reason(group, key))
            )
        row |= _energy(group)
        devices = group["devices"]
        busy = group["step_median"] * devices / group["global_batch"]
        row["device_seconds"] = float(busy.median()) * 1e6
        precision = records.study.variant(variant)["precision"]
        peak = device["peak_flops"].get(precision)
        stated = f"the config does not state report.device.peak_flops.{precision}"
        row["mfu"] = Absent(reason=stated)
        if peak:
            row["mfu"] = float((group["flops_per_second"] / (peak * devices)).median())
        price = device["price_per_hour"]
        row["cost"] = row["target_cost"] = Absent(
            reason="the config does not state report.device.price_per_hour"
        )
        if price:
            row["cost"] = row["device_seconds"] * price / 3600
            reached = group["target_reached"].astype(bool)
            row["target_cost"] = Absent(reason="not every run met the target")
            if reached.all():
                to_target = float((group["target_seconds"] * devices).median())
                row["target_cost"] = to_target * price / 3600
        rows.append(row)
    currency = device["currency"]
    return Table(
        name=f"{workload}-resources",
        title="Memory, arithmetic, energy, cost",
        columns=[
            *WHO,
            N,
            Column(key="rss", label="Peak resident memory", unit="MB", decimals=0, scale=1e-6),
            Column(key="allocated", label="Device, allocated", unit="MB", decimals=0, scale=1e-6),
            Column(key="reserved", label="Device, reserved", unit="MB", decimals=0, scale=1e-6),
            Column(
                key="planned", label="Planned by the compiler", unit="MB", decimals=1, scale=1e-6
            ),
            Column(
                key="flops_per_second", label="Arithmetic", unit="GFLOP/s", digits=3, scale=1e-9
            ),
            Column(key="mfu", label="MFU", unit="%", decimals=1, scale=100),
            Column(key="energy", label="Energy", unit="J", digits=3),
            Column(key="example_energy", label="Energy an example", unit="mJ", digits=3, scale=1e3),
            Column(key="target_energy", label="Energy to target", unit="J", digits=3),
            Column(
                key="device_seconds", label="Device time", unit="s per million examples", digits=3
            ),
            Column(key="cost", label="Cost", unit=f"{currency} per million examples", digits=3),
            Column(key="target_cost", label="Cost to target", unit=currency, digits=3),
        ],
        rows=rows,
        note=f"Medians over runs. Arithmetic: {_formula(records, workload)}. "
        "MFU is arithmetic over the peak of the devices at the precision used, which the config "
        "states; its seconds are those of training, with the first windows and waiting for data. "
        "Energy to the target is a run's energy in the share of its training time until then. Cost "
        "is device time in training at the config's price.",
    )


def _energy(group: pd.DataFrame) -> dict[str, Any]:
    """Return energy an example and to the target, medians over the runs that have it."""
    known = group[group["energy"].notna()]
    if not len(known):
        unknown = Absent(reason=frames.reason(group, "energy"))
        return {"example_energy": unknown, "target_energy": unknown}
    examples = known["steps"] * known["global_batch"]
    to_target: Any = Absent(reason="not every run met the target")
    if known["target_reached"].eq(True).all():
        shares = known["energy"] * known["target_seconds"] / known["training"]
        to_target = float(shares.median())
    return {
        "example_energy": float((known["energy"] / examples).median()),
        "target_energy": to_target,
    }


def _formula(records: Records, workload: str) -> str:
    for run in records.runs:
        if run.workload == workload and run.summary:
            return str((run.summary.get("flops") or {}).get("formula", "formula not stated"))
    return "no run tells its formula"
