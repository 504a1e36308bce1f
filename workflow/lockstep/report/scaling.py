"""Scaling over devices and performance over problems."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lockstep.report import contract, frames
from lockstep.report.columns import WHO, N
from lockstep.report.contract import BLOCKS, FLAGGED
from lockstep.report.facts import Facts, facts_of
from lockstep.report.load import FAILED, FINISHED, Records
from lockstep.report.tables import Absent, Column, Table
from lockstep.report.verdicts import NOT_COMPARABLE, Comparison, difference_text

Place = tuple[str, str, str]
"""Workload, variant and scale."""

STRONG = re.compile(
    r"topology\.(devices|examples)|host\.node|gpu\.units|engine\.(devices|backend)|cache"
)
"""Facts that another scale has of necessity, or that touch compilation alone."""

WEAK = re.compile(
    rf"{STRONG.pattern}|recipe\.(global_batch|optimizer|epochs)|weights\.initial|batches|steps"
)
"""The same where the global batch grows with the scale."""


def scaling(records: Records, workload: str, runs: pd.DataFrame) -> Table | None:
    """Return strong-scaling efficiency: the global batch is the same at every scale.

    efficiency = (throughput / throughput at the smallest scale) / (devices / devices there).
    """
    if len(records.study.config["scales"]) < 2:
        return None
    medians = frames.finished(runs).dropna(subset=["examples_per_second"])
    found = {
        key: (int(g["devices"].iloc[0]), float(g["examples_per_second"].median()), len(g))
        for key, g in medians.groupby(["variant", "scale"], sort=False)
    }
    told = _facts(records)
    rows = []
    for variant in records.study.config["variants"]:
        mine = [
            (s, *found[variant, s]) for s in records.study.config["scales"] if (variant, s) in found
        ]
        if not mine:
            continue
        base = min(mine, key=lambda item: item[1])
        for scale, world, speed, n in sorted(mine, key=lambda item: item[1]):
            here, there = ((workload, variant, s) for s in (scale, base[0]))
            forbidden, flags = _apart(told, there, here, STRONG)
            speedup = speed / base[2]
            rows.append(
                {
                    "scale": scale,
                    "variant": variant,
                    "n": n,
                    "devices": world,
                    "examples_per_second": speed,
                    "speedup": forbidden or speedup,
                    "efficiency": forbidden or speedup / (world / base[1]),
                    "against": base[0],
                    "flags": flags,
                }
            )
    return Table(
        name=f"{workload}-scaling",
        title="Strong scaling: the same global batch over more devices",
        columns=[
            *WHO,
            N,
            Column(key="devices", label="Devices", unit="count"),
            Column(key="examples_per_second", label="Throughput", unit="examples/s", decimals=0),
            Column(key="speedup", label="Speed-up", unit="×", decimals=2),
            Column(key="efficiency", label="Efficiency", unit="%", decimals=0, scale=100),
            Column(key="against", label="against scale"),
            Column(key="flags", label="Flagged between the scales"),
        ],
        rows=rows,
        note="Medians over runs. Efficiency is absent where the scales ran by other means.",
    )


def _facts(records: Records) -> Mapping[Place, Mapping[int, Facts]]:
    """Return the facts of finished runs by place and seed."""
    told: dict[Place, dict[int, Facts]] = {}
    for run in records.runs:
        if run.status == FINISHED and not run.begun_elsewhere:
            place = (run.workload, run.variant, run.scale)
            told.setdefault(place, {})[run.seed] = facts_of(run)
    return told


def _apart(
    told: Mapping[Place, Mapping[int, Facts]], base: Place, other: Place, expected: re.Pattern[str]
) -> tuple[Absent | None, str]:
    """Return why two scales of a variant must not be compared, if so, and what else differed."""
    a, b = told[base], told[other]
    pairs = [(a[s], b[s]) for s in a.keys() & b.keys()]
    # Without a common seed, what depends on it is not looked at.
    pairs = pairs or [({**next(iter(a.values())), **_seedless(b)}, next(iter(b.values())))]
    differences = [d for d in contract.diff(pairs) if not expected.match(d.fact)]
    grave = [difference_text(d) for d in differences if d.level == BLOCKS]
    flags = [difference_text(d) for d in differences if d.level == FLAGGED]
    return (Absent(reason=grave[0]) if grave else None), "; ".join(flags)


def _seedless(facts: Mapping[int, Facts]) -> dict[str, Any]:
    one = next(iter(facts.values()))
    return {name: one.get(name) for name in ("weights.initial", "batches")}


def weak_scaling(records: Records, runs: pd.DataFrame) -> Table | None:
    """Return weak-scaling efficiency over workload entries that differ in global batch alone.

    efficiency = step time at the smallest scale / step time, at equal examples a process.
    """
    rows = list(_weak_rows(records, runs))
    if not rows:
        return None
    return Table(
        name="weak-scaling",
        title="Weak scaling: the same batch on every process",
        columns=[
            Column(key="workload", label="Workload"),
            *WHO,
            N,
            Column(key="devices", label="Devices", unit="count"),
            Column(key="local_batch", label="Examples a device", decimals=0),
            Column(key="step_median", label="Step", unit="ms", digits=4, scale=1e3),
            Column(key="efficiency", label="Efficiency", unit="%", decimals=0, scale=100),
            Column(key="flags", label="Flagged between the scales"),
        ],
        rows=rows,
        note=(
            "Against the smallest scale of the same variant; medians over runs. Efficiency is "
            "absent where the scales ran by other means."
        ),
    )


def _weak_rows(records: Records, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    families: dict[str, list[str]] = {}
    for name, recipe in records.study.config["workloads"].items():
        same = {k: v for k, v in recipe.items() if k not in ("global_batch", "optimizer", "epochs")}
        families.setdefault(repr(sorted(same.items())), []).append(name)
    done, told = frames.finished(runs).dropna(subset=["step_median"]), _facts(records)
    for names in (names for names in families.values() if len(names) > 1):
        mine = done[done["workload"].isin(names)]
        local = mine["global_batch"] / mine["devices"]
        for (variant, batch), part in mine.groupby([mine["variant"], local], sort=False):
            times = part.groupby(["workload", "scale", "devices"])["step_median"]
            ordered = sorted(
                ((key, float(g.median()), len(g)) for key, g in times), key=lambda item: item[0][2]
            )
            if len({key[2] for key, _, _ in ordered}) < 2:
                continue
            (first, first_scale, _), first_seconds, _ = ordered[0]
            for (workload, scale, world), seconds, n in ordered:
                there, here = (first, variant, first_scale), (workload, variant, scale)
                forbidden, flags = _apart(told, there, here, WEAK)
                yield {
                    "workload": workload,
                    "scale": scale,
                    "variant": variant,
                    "n": n,
                    "devices": int(world),
                    "local_batch": float(batch),
                    "step_median": seconds,
                    "efficiency": forbidden or first_seconds / seconds,
                    "flags": flags,
                }


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
