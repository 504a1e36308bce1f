"""What was measured, as tables: one function a question.

Across seeds the tables give medians (times) or means (metrics); a run counts once.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lockstep.report import frames, statistics
from lockstep.report.load import Records
from lockstep.report.tables import Absent, Column, Table
from lockstep.report.verdicts import Comparison

WHO = (Column(key="scale", label="Scale"), Column(key="variant", label="Variant"))
N = Column(key="n", label="Runs", unit="count")

COPIED = (0.243, 0.172, 0.132, 0.109, 0.091, 0.079, 0.067, 0.060, 0.056, 0.050)
"""Epoch losses that the widely copied comparison prints for both frameworks."""

COPIED_RECIPE = {"workload": "mnist_cnn", "epochs": 10, "global_batch": 64}
COPIED_OPTIMIZER = {"name": "sgd", "learning_rate": 0.001, "momentum": 0.9}


def groups(records: Records, runs: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield scale, variant and finished runs, in the config's order; groups without runs too."""
    grouped = dict(iter(frames.finished(runs).groupby(["scale", "variant"], sort=False)))
    config = records.study.config
    for scale, variant in itertools.product(config["scales"], config["variants"]):
        yield scale, variant, grouped.get((scale, variant), runs.iloc[:0])


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
            row["tolerance"] = max(row.get("tolerance", 0.0), _float(rung["tolerance"]))
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
                "noise": float(timed["noise"].median()),
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
        ],
        rows=rows,
        note=(
            "Every window but the first of each start. Each figure is taken over the steps of a "
            "run, then its median over runs."
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
    """Return where the time of a run goes, from process start to its end."""
    rows = []
    for scale, variant, group in groups(records, runs):
        if len(group):
            parts = {key: float(group[key].mean()) for key, _ in SPLIT}
            row = {"scale": scale, "variant": variant, "n": len(group), **parts}
            rows.append(row | {"total": sum(parts.values())})
    return Table(
        name=f"{workload}-time-split",
        title="Parts of a run",
        columns=[
            *WHO,
            N,
            *(Column(key=k, label=label, unit="s", decimals=2) for k, label in SPLIT),
            Column(key="total", label="Whole run", unit="s", decimals=2),
        ],
        rows=rows,
        note="Mean over runs, so that the parts add up.",
    )


def preparation(records: Records, workload: str, runs: pd.DataFrame) -> Table:
    """Return what it takes until training is steady, with cold and warm caches apart."""
    rows = []
    for scale, variant, group in groups(records, runs):
        for cache, part in group.groupby("cache", sort=True) if len(group) else ():
            row = {"scale": scale, "variant": variant, "cache": cache, "n": len(part)}
            for key in ("import", "trace", "compile", "first_window"):
                row[key] = float(part[key].median())
            rows.append(row)
    return Table(
        name=f"{workload}-preparation",
        title="Before training is steady: cold and warm cache",
        columns=[
            *WHO,
            Column(key="cache", label="Cache"),
            N,
            Column(key="import", label="Import", unit="s", decimals=2),
            Column(key="trace", label="Trace", unit="s", decimals=2),
            Column(key="compile", label="Compile or first use", unit="s", decimals=2),
            Column(key="first_window", label="First window", unit="s", decimals=2),
        ],
        rows=rows,
        note="Medians. A variant that compiles nothing has cache “none”.",
    )


def break_even(
    records: Records, workload: str, runs: pd.DataFrame, comparisons: Sequence[Comparison]
) -> Table:
    """Return after how many steps a longer preparation has paid for itself.

    steps = (preparation of one - preparation of the other) / (step of the other - step of one).
    """
    chosen = {(s, v): g for s, v, g in groups(records, runs)}
    rows = []
    for c in comparisons:
        a, b = chosen[c.scale, c.baseline], chosen[c.scale, c.candidate]
        if not len(a) or not len(b):
            continue
        for cache in sorted({*a["cache"], *b["cache"]} - {"none"}):
            first, second = (g[g["cache"].isin([cache, "none"])] for g in (a, b))
            if len(first) and len(second):
                rows.append(_break_even(c, cache, first, second))
    return Table(
        name=f"{workload}-break-even",
        title="Break-even between preparation and step time",
        columns=[
            Column(key="scale", label="Scale"),
            Column(key="longer", label="Prepares longer"),
            Column(key="shorter", label="than"),
            Column(key="cache", label="Cache"),
            Column(key="preparation", label="by", unit="s", decimals=2),
            Column(key="saved", label="Saves a step", unit="ms", digits=3, scale=1e3),
            Column(key="steps", label="Break-even", unit="steps", decimals=0),
        ],
        rows=rows,
        note=(
            "Difference in trace and compile time over the difference in median step time "
            "(medians over runs). Differences in step time that the verdict does not detect make "
            "this number meaningless."
        ),
    )


def _break_even(c: Comparison, cache: str, a: pd.DataFrame, b: pd.DataFrame) -> dict[str, Any]:
    more = float(b["preparation"].median() - a["preparation"].median())
    saved = float(a["step_median"].median() - b["step_median"].median())
    longer, shorter = (c.candidate, c.baseline) if more >= 0 else (c.baseline, c.candidate)
    more, saved = (more, saved) if more >= 0 else (-more, -saved)
    steps: Any = more / saved if saved > 0 else "never: its steps are not shorter"
    return {
        "scale": c.scale,
        "longer": longer,
        "shorter": shorter,
        "cache": cache,
        "preparation": more,
        "saved": saved,
        "steps": steps,
    }


def resources(records: Records, workload: str, runs: pd.DataFrame) -> Table:
    """Return memory, arithmetic, energy and device time."""
    rows = []
    for scale, variant, group in groups(records, runs):
        if not len(group):
            continue
        row: dict[str, Any] = {"scale": scale, "variant": variant, "n": len(group)}
        for key in ("rss", "allocated", "reserved", "planned", "flops_per_second", "mfu", "energy"):
            known = group[key].dropna()
            row[key] = (
                float(known.median()) if len(known) else Absent(reason=frames.reason(group, key))
            )
        busy = group["step_median"] * group["world_size"] / group["global_batch"]
        row["cost"] = float(busy.median()) * 1e6
        rows.append(row)
    return Table(
        name=f"{workload}-resources",
        title="Memory, arithmetic, energy",
        columns=[
            *WHO,
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
            Column(key="cost", label="Device time", unit="s per million examples", digits=3),
        ],
        rows=rows,
        note=f"Medians over runs. Arithmetic: {_formula(records, workload)}. "
        "MFU is arithmetic over the peak of the devices at the precision used.",
    )


def _formula(records: Records, workload: str) -> str:
    for run in records.runs:
        if run.workload == workload and run.summary:
            return str(run.summary.get("flops", {}).get("formula", "formula not stated"))
    return "no run tells its formula"


def target(records: Records, workload: str, runs: pd.DataFrame) -> Table:
    """Return training time to the target; runs that never met it are censored, not dropped."""
    goal = records.study.workload(workload)["target"]
    rows = []
    for scale, variant, group in groups(records, runs):
        if not len(group):
            continue
        reached = group["target_reached"].to_numpy(dtype=bool)
        times = group["target_seconds"].to_numpy(dtype=float)
        median = statistics.censored_median(times, reached)
        rows.append(
            {
                "scale": scale,
                "variant": variant,
                "n": len(group),
                "reached": int(reached.sum()),
                "median": median
                if median is not None
                else Absent(reason="fewer than half of the runs met the target"),
                "fastest": float(times[reached].min()) if reached.any() else None,
                "slowest": float(times.max()),
                "slowest_is": "met" if reached[times.argmax()] else "censored: not met by then",
            }
        )
    return Table(
        name=f"{workload}-time-to-target",
        title=f"Training time to a test {goal['metric']} of {goal['value']:g}",
        columns=[
            *WHO,
            N,
            Column(key="reached", label="Met it", unit="count"),
            Column(key="median", label="Median", unit="s", digits=4),
            Column(key="fastest", label="Fastest", unit="s", digits=4),
            Column(key="slowest", label="Slowest", unit="s", digits=4),
            Column(key="slowest_is", label="The slowest"),
        ],
        rows=rows,
        note=(
            "Kaplan–Meier median of training time, read at the end of epochs, without "
            "preparation and evaluation."
        ),
    )


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
        gaps = [
            abs(
                values[c.candidate, c.scale, s][c.metric] - values[c.baseline, c.scale, s][c.metric]
            )
            for s in c.seeds
        ]
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
            "verdict": c.quality_kind,
            "floor": floors.get(c.scale, unknown),
        }
        for c in comparisons
        if c.quality
    ]
    return Table(
        name=f"{workload}-equivalence",
        title="Is the final metric equivalent?",
        columns=[
            Column(key="scale", label="Scale"),
            Column(key="candidate", label="Variant"),
            Column(key="baseline", label="against"),
            Column(key="n", label="Pairs", unit="count"),
            Column(key="difference", label="Difference", decimals=4),
            Column(key="low", label="90% interval from", decimals=4),
            Column(key="high", label="to", decimals=4),
            Column(key="margin", label="Margin ±", digits=2),
            Column(key="p", label="TOST p, Holm", digits=2),
            Column(key="verdict", label="Verdict"),
            Column(key="floor", label="Noise floor", decimals=4),
        ],
        rows=rows,
        note=(
            "Two one-sided paired t tests. The noise floor is the mean absolute difference, at "
            "equal seed, between variants of one framework and precision."
        ),
    )


def scaling(records: Records, workload: str, runs: pd.DataFrame) -> Table | None:
    """Return strong-scaling efficiency: the global batch is the same at every scale.

    efficiency = (throughput / throughput at the smallest scale) / (processes / processes there).
    """
    if len(records.study.config["scales"]) < 2:
        return None
    medians = frames.finished(runs).groupby(["variant", "scale"], sort=False)
    found = {
        key: (int(g["world_size"].iloc[0]), float(g["examples_per_second"].median()))
        for key, g in medians
    }
    rows = []
    for variant in records.study.config["variants"]:
        mine = [
            (s, *found[variant, s]) for s in records.study.config["scales"] if (variant, s) in found
        ]
        if not mine:
            continue
        base = min(mine, key=lambda item: item[1])
        for scale, world, speed in sorted(mine, key=lambda item: item[1]):
            rows.append(
                {
                    "scale": scale,
                    "variant": variant,
                    "world_size": world,
                    "examples_per_second": speed,
                    "speedup": speed / base[2],
                    "efficiency": (speed / base[2]) / (world / base[1]),
                    "against": base[0],
                }
            )
    return Table(
        name=f"{workload}-scaling",
        title="Strong scaling: the same global batch over more processes",
        columns=[
            *WHO,
            Column(key="world_size", label="Processes", unit="count"),
            Column(key="examples_per_second", label="Throughput", unit="examples/s", decimals=0),
            Column(key="speedup", label="Speed-up", unit="×", decimals=2),
            Column(key="efficiency", label="Efficiency", unit="%", decimals=0, scale=100),
            Column(key="against", label="against scale"),
        ],
        rows=rows,
        note="Medians over runs.",
    )


def weak_scaling(records: Records, runs: pd.DataFrame) -> Table | None:
    """Return weak-scaling efficiency over workload entries that differ in global batch alone.

    efficiency = step time at the smallest scale / step time, at equal examples a process.
    """
    families: dict[str, list[str]] = {}
    for name, recipe in records.study.config["workloads"].items():
        same = {k: v for k, v in recipe.items() if k not in ("global_batch", "optimizer", "epochs")}
        families.setdefault(repr(sorted(same.items())), []).append(name)
    done = frames.finished(runs)
    rows = []
    for names in (names for names in families.values() if len(names) > 1):
        mine = done[done["workload"].isin(names)]
        local = mine["global_batch"] / mine["world_size"]
        for (variant, batch), part in mine.groupby([mine["variant"], local], sort=False):
            times = part.groupby(["workload", "scale", "world_size"])["step_median"].median()
            ordered = sorted(times.items(), key=lambda item: item[0][2])
            if len({key[2] for key, _ in ordered}) < 2:
                continue
            for (workload, scale, world), seconds in ordered:
                rows.append(
                    {
                        "workload": workload,
                        "scale": scale,
                        "variant": variant,
                        "world_size": int(world),
                        "local_batch": float(batch),
                        "step_median": float(seconds),
                        "efficiency": float(ordered[0][1] / seconds),
                    }
                )
    if not rows:
        return None
    return Table(
        name="weak-scaling",
        title="Weak scaling: the same batch on every process",
        columns=[
            Column(key="workload", label="Workload"),
            *WHO,
            Column(key="world_size", label="Processes", unit="count"),
            Column(key="local_batch", label="Examples a process", decimals=0),
            Column(key="step_median", label="Step", unit="ms", digits=4, scale=1e3),
            Column(key="efficiency", label="Efficiency", unit="%", decimals=0, scale=100),
        ],
        rows=rows,
        note="Against the smallest scale of the same variant; medians over runs.",
    )


def profile(records: Records, runs: pd.DataFrame) -> pd.DataFrame | None:
    """Return each variant's step time over the best one's, a row a problem (workload at a scale).

    What a performance profile is drawn from (Dolan & Moré 2002); None below two problems.
    """
    times = (
        frames.finished(runs)
        .groupby(["workload", "scale", "variant"])["step_median"]
        .median()
        .unstack("variant")
    )
    if len(times) < 2:
        return None
    variants = [v for v in records.study.config["variants"] if v in times]
    return times[variants].div(times.min(axis=1), axis=0).replace(np.nan, np.inf)
