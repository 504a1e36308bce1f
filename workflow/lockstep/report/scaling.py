"""Scaling over devices and performance over problems."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lockstep.report import frames
from lockstep.report.columns import WHO
from lockstep.report.load import FAILED, Records
from lockstep.report.tables import Column, Table
from lockstep.report.verdicts import NOT_COMPARABLE, Comparison


def scaling(records: Records, workload: str, runs: pd.DataFrame) -> Table | None:
    """Return strong-scaling efficiency: the global batch is the same at every scale.

    efficiency = (throughput / throughput at the smallest scale) / (devices / devices there).
    """
    if len(records.study.config["scales"]) < 2:
        return None
    medians = frames.finished(runs).groupby(["variant", "scale"], sort=False)
    found = {
        key: (int(g["devices"].iloc[0]), float(g["examples_per_second"].median()))
        for key, g in medians
        if g["examples_per_second"].notna().any()
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
                    "devices": world,
                    "examples_per_second": speed,
                    "speedup": speed / base[2],
                    "efficiency": (speed / base[2]) / (world / base[1]),
                    "against": base[0],
                }
            )
    return Table(
        name=f"{workload}-scaling",
        title="Strong scaling: the same global batch over more devices",
        columns=[
            *WHO,
            Column(key="devices", label="Devices", unit="count"),
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
    done = frames.finished(runs).dropna(subset=["step_median"])
    rows = []
    for names in (names for names in families.values() if len(names) > 1):
        mine = done[done["workload"].isin(names)]
        local = mine["global_batch"] / mine["devices"]
        for (variant, batch), part in mine.groupby([mine["variant"], local], sort=False):
            times = part.groupby(["workload", "scale", "devices"])["step_median"].median()
            ordered = sorted(times.items(), key=lambda item: item[0][2])
            if len({key[2] for key, _ in ordered}) < 2:
                continue
            for (workload, scale, world), seconds in ordered:
                rows.append(
                    {
                        "workload": workload,
                        "scale": scale,
                        "variant": variant,
                        "devices": int(world),
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
            Column(key="devices", label="Devices", unit="count"),
            Column(key="local_batch", label="Examples a device", decimals=0),
            Column(key="step_median", label="Step", unit="ms", digits=4, scale=1e3),
            Column(key="efficiency", label="Efficiency", unit="%", decimals=0, scale=100),
        ],
        rows=rows,
        note="Against the smallest scale of the same variant; medians over runs.",
    )


def profile(
    records: Records, runs: pd.DataFrame, comparisons: Sequence[Comparison]
) -> pd.DataFrame | None:
    """Return each variant's step time over the best one's, a row a problem (workload at a scale).

    What a performance profile is drawn from (Dolan & Moré 2002). A variant that failed on a problem
    has lost it: its ratio is infinite. A problem of which any two variants are not comparable, or
    of which a variant has no step time for another reason, is left out; None below two problems.
    """
    unfair = {(c.workload, c.scale) for c in comparisons if c.kind == NOT_COMPARABLE}
    variants = list(records.study.config["variants"])
    rows = {}
    for problem, group in runs.groupby(["workload", "scale"], sort=False):
        mine = frames.finished(group).groupby("variant")["step_median"].median()
        times = mine.reindex(variants)
        unknown = [v for v in variants if np.isnan(times[v]) and not _lost(group, v)]
        if problem not in unfair and not unknown and times.notna().any():
            rows[problem] = times / times.min()
    if len(rows) < 2:
        return None
    table = pd.DataFrame(rows).T.rename_axis(["workload", "scale"])
    return table.fillna(np.inf)


def _lost(group: pd.DataFrame, variant: str) -> bool:
    """Whether all of a variant's runs of a problem failed."""
    return bool((group.loc[group["variant"] == variant, "status"] == FAILED).all())
