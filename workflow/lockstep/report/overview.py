"""Tables over the whole study: comparisons, contract differences, threats, runs."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from lockstep.report.sentences import metric_decimals
from lockstep.report.tables import Absent, Column, Table
from lockstep.report.threats import Threat
from lockstep.report.verdicts import Comparison


def comparisons(comparisons: Sequence[Comparison]) -> Table:
    """Return every comparison with its numbers."""
    rows = [
        {
            "workload": c.workload,
            "scale": c.scale,
            "candidate": c.candidate,
            "baseline": c.baseline,
            "verdict": c.kind,
            "beside": _beside(c),
            "n": c.step_time.n if c.step_time else 0,
            **_ratio_cells("step", c.step_time),
            "p": c.step_time.p if c.step_time else None,
            "p_holm": c.p_holm,
            "seeds_needed": c.seeds_needed,
            **_ratio_cells("target", c.to_target),
            **_ratio_cells("run", c.whole_run),
            "quality": c.quality_kind,
            "difference": c.quality.difference if c.quality else None,
            "difference_low": c.quality.low if c.quality else None,
            "difference_high": c.quality.high if c.quality else None,
            "quality_p_holm": c.quality_p_holm,
            "first_step": c.first_step.largest if c.first_step else None,
            "method": c.step_time.method if c.step_time else "none",
        }
        for c in comparisons
    ]
    margins = [c.quality.margin for c in comparisons if c.quality]
    decimals = max(map(metric_decimals, margins), default=4)
    return Table(
        name="comparisons",
        title="All comparisons",
        columns=[
            Column(key="workload", label="Workload"),
            Column(key="scale", label="Scale"),
            Column(key="candidate", label="Variant"),
            Column(key="baseline", label="against"),
            Column(key="verdict", label="Step time is"),
            Column(key="beside", label="Forbidden by, or flagged"),
            Column(key="n", label="Pairs", unit="count"),
            Column(key="step", label="Step time, ratio", digits=5),
            Column(key="step_low", label="95% from", digits=5),
            Column(key="step_high", label="to", digits=5),
            Column(key="p", label="p", digits=2),
            Column(key="p_holm", label="p, Holm", digits=2),
            Column(key="seeds_needed", label="Seeds for the set precision", unit="count"),
            Column(key="target", label="Time to target, ratio", digits=5),
            Column(key="target_low", label="95% from", digits=5),
            Column(key="target_high", label="to", digits=5),
            Column(key="run", label="Whole run, ratio", digits=5),
            Column(key="run_low", label="95% from", digits=5),
            Column(key="run_high", label="to", digits=5),
            Column(key="quality", label="Final metric is"),
            Column(key="difference", label="Difference", decimals=decimals),
            Column(key="difference_low", label="90% from", decimals=decimals),
            Column(key="difference_high", label="to", decimals=decimals),
            Column(key="quality_p_holm", label="TOST p, Holm", digits=2),
            Column(key="first_step", label="First losses apart, at most", digits=2),
            Column(key="method", label="Interval of ratios"),
        ],
        rows=rows,
        note=(
            "Ratios are the variant's time over the other's, paired by seed; below 1 the variant "
            "is faster. Only step time carries a verdict; the other ratios are without correction."
        ),
    )


COMPARED = ("workload", "scale", "candidate", "baseline")
RATIO = ("verdict", "beside", "n", "step", "step_low", "step_high")
PARTS = {
    "step time": (*RATIO, "p", "p_holm", "seeds_needed", "method"),
    "time to target and whole run": (
        *("target", "target_low", "target_high"),
        *("run", "run_low", "run_high"),
    ),
    "final metric": (
        *("quality", "difference", "difference_low", "difference_high"),
        *("quality_p_holm", "first_step"),
    ),
}
"""Columns of the parts in which the page shows the table of comparisons: no page has the width."""


def parts(whole: Table) -> list[Table]:
    """Return the table of comparisons in parts; the CSV has it whole."""
    by_key = {column.key: column for column in whole.columns}
    return [
        replace(
            whole,
            title=f"{whole.title}: {title}",
            columns=[by_key[key] for key in (*COMPARED, *keys)],
        )
        for title, keys in PARTS.items()
    ]


def _beside(c: Comparison) -> str | None:
    """Return what took a verdict away, or in short what is flagged beside it."""
    problem = next(iter([*c.problems, *c.timing_problems]), None)
    return problem or ", ".join(f"{d.label} ({d.fact})" for d in c.flags) or None


def _ratio_cells(name: str, ratio: Any) -> dict[str, Any]:
    if ratio is None:
        return {}
    return {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}


def contract(comparisons: Sequence[Comparison]) -> Table:
    """Return what differed between compared runs, the gravest first; equal rows are joined."""
    rows: dict[tuple, dict[str, Any]] = {}
    for c in comparisons:
        for d in c.differences:
            row = {
                "level": d.level,
                "fact": d.fact,
                "candidate": c.candidate,
                "is": _values(d.candidate),
                "baseline": c.baseline,
                "was": _values(d.baseline),
                "pairs": f"{d.pairs} of {d.of}",
                "why": d.why,
            }
            places = rows.setdefault(tuple(row.values()), {"where": [], **row})["where"]
            places.append(f"{c.workload} at {c.scale}")
    order = {"not comparable": 0, "flagged": 1, "declared": 2}
    ordered = sorted(rows.values(), key=lambda row: order[row["level"]])
    for row in ordered:
        places = row["where"]
        row["where"] = ", ".join(places[:3]) + (
            f" and {len(places) - 3} more" if places[3:] else ""
        )
    return Table(
        name="contract",
        title="What differed between compared runs",
        columns=[
            Column(key="level", label="Level"),
            Column(key="fact", label="Fact"),
            Column(key="candidate", label="Variant"),
            Column(key="is", label="has"),
            Column(key="baseline", label="The other"),
            Column(key="was", label="has"),
            Column(key="pairs", label="Pairs"),
            Column(key="why", label="What to think of it"),
            Column(key="where", label="Where"),
        ],
        rows=ordered,
        note=(
            "Declared: a variant says so, it is what is compared. Flagged: undeclared, stands "
            "beside the verdict. Not comparable: takes the verdict away. Facts that only one "
            "framework has are not listed between frameworks."
        ),
    )


def _values(values: Sequence[str]) -> str:
    return ", ".join(v[:12] + "…" if len(v) == 64 else v for v in values)


def threats(found: Sequence[Threat]) -> Table:
    """Return the threats to validity."""
    return Table(
        name="threats",
        title="Threats to validity",
        columns=[
            Column(key="name", label="Threat"),
            Column(key="where", label="Where"),
            Column(key="what", label="What was found"),
        ],
        rows=[asdict(threat) for threat in found],
    )


def runs(runs: pd.DataFrame) -> Table:
    """Return one row a run, whatever became of it."""
    columns = [
        Column(key="workload", label="Workload"),
        Column(key="variant", label="Variant"),
        Column(key="scale", label="Scale"),
        Column(key="seed", label="Seed", unit="count"),
        Column(key="status", label="Status"),
        Column(key="reason", label="Reason"),
        Column(key="step_median", label="Step, median", unit="ms", digits=4, scale=1e3),
        Column(key="total", label="Whole run", unit="s", decimals=1),
        Column(key="metric", label="Final metric", decimals=4),
        Column(key="target_seconds", label="To target", unit="s", digits=3),
        Column(key="cache", label="Cache"),
        Column(key="disturbed", label="Disturbed windows", unit="count"),
        Column(key="attempts", label="Starts", unit="count"),
    ]
    known = [column for column in columns if column.key in runs]
    values = runs[[column.key for column in known]].astype(object)
    if "target_seconds" in values:
        censored = runs["target_reached"].eq(False)
        values.loc[censored, "target_seconds"] = Absent(reason="not met")
    for name in {"attempts", "disturbed"} & set(values):
        values[name] = [None if pd.isna(v) else int(v) for v in values[name]]
    if "step_median" in values:
        untimed = runs["step_median"].isna() & runs["step_absent"].notna()
        values.loc[untimed, "step_median"] = [
            Absent(reason=why) for why in runs.loc[untimed, "step_absent"]
        ]
    values["reason"] = [None if pd.isna(v) else v for v in values["reason"]]
    rows = values.to_dict("records")
    return Table(name="runs", title="All runs", columns=known, rows=rows)
