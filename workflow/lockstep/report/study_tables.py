"""The tables over the whole study: comparisons, differences, threats, runs."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from lockstep.report.comparability import BLOCKS, DECLARED, FLAGGED
from lockstep.report.load import Records
from lockstep.report.sentences import metric_decimals
from lockstep.report.tables import Absent, Table, table
from lockstep.report.threats_to_validity import Threat
from lockstep.report.verdicts import Comparison

COMPARED = """workload | Workload
    scale | Scale
    candidate | Variant
    baseline | against
    """
PARTS = {
    "step time": """verdict | Step time is
        beside | Forbidden by, or flagged
        n | Pairs | | d
        step | Step time, ratio | | 5g
        step_low | 95% from | | 5g
        step_high | to | | 5g
        p | p | | 2g
        p_holm | p, Holm | | 2g
        seeds_needed | Seeds for the set precision | | d
        method | Interval of ratios
        """,
    "time to target and whole run": """target | Time to target, ratio | | 5g
        target_low | 95% from | | 5g
        target_high | to | | 5g
        run | Whole run, ratio | | 5g
        run_low | 95% from | | 5g
        run_high | to | | 5g
        """,
    "final metric": """quality | Final metric is
        difference | Difference | | {decimals}f
        difference_low | 90% from | | {decimals}f
        difference_high | to | | {decimals}f
        margin | Margin ± | | 2g
        quality_p_holm | TOST p, Holm | | 2g
        different_p_holm | p of a difference, Holm | | 2g
        within | Within one framework | | {decimals}f
        first_step | Largest difference of losses | | 2g
        """,
}
"""Columns of the parts in which the page shows the table of comparisons: no page has the width."""


def comparisons(records: Records, found: Sequence[Comparison]) -> Table:
    """Return every comparison with its numbers."""
    rows, within = [], _within(records, found)
    for c in found:
        row: dict[str, Any] = {name: getattr(c, name) for name in COMPARED_KEYS}
        for name, ratio in (("step", c.step_time), ("target", c.to_target), ("run", c.whole_run)):
            if ratio is not None:
                row |= {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
        if c.step_time:
            row |= {"n": c.step_time.n, "p": c.step_time.p, "method": c.step_time.method}
        if c.quality:
            ends = {"difference_low": c.quality.low, "difference_high": c.quality.high}
            row |= {"difference": c.quality.difference, "margin": c.quality.margin, **ends}
        problem = next(iter([*c.problems, *c.timing_problems]), None)
        row |= {
            "verdict": c.kind,
            "beside": problem or ", ".join(f"{d.label} ({d.fact})" for d in c.flags) or None,
            "p_holm": c.p_holm,
            "seeds_needed": c.seeds_needed,
            "quality": c.quality_kind,
            "quality_p_holm": c.quality_p_holm,
            "different_p_holm": c.different_p_holm,
            "within": within.get((c.workload, c.scale), UNKNOWN) if c.quality else None,
            "first_step": c.first_step.largest if c.first_step else None,
        }
        rows.append(row)
    decimals = max((metric_decimals(c.quality.margin) for c in found if c.quality), default=4)
    return table(
        "comparisons",
        "All comparisons",
        (COMPARED + "".join(PARTS.values())).format(decimals=decimals),
        rows,
        "Ratios are the variant's time over the other's, paired by seed; below 1 the variant is "
        "faster. Only step time carries a verdict; the other ratios are without correction. The "
        "ratio of whole runs is of runs that did not start cold. “Within one framework” is the "
        "mean absolute difference of the metric, at equal seed, between variants of one framework "
        "and precision: what rounding within a framework does to it.",
    )


UNKNOWN = Absent(reason="no two comparable variants of one framework")


def _within(records: Records, found: Sequence[Comparison]) -> dict[tuple[str, str], float]:
    """Return the largest mean absolute difference within a framework, by workload and scale."""
    metrics = {run.key: run.summary["metrics"] for run in records.runs if run.summary}
    result: dict[tuple[str, str], float] = {}
    for c in found:
        a, b = (records.study.variant(v) for v in (c.baseline, c.candidate))
        same = (a["framework"], a["precision"]) == (b["framework"], b["precision"])
        if same and c.quality and not c.problems:
            gaps = []
            for seed in c.seeds:
                keys = [(c.workload, v, c.scale, seed) for v in (c.baseline, c.candidate)]
                gaps.append(abs(metrics[keys[0]][c.metric] - metrics[keys[1]][c.metric]))
            place = (c.workload, c.scale)
            result[place] = max(result.get(place, 0.0), sum(gaps) / len(gaps))
    return result


COMPARED_KEYS = ("workload", "scale", "candidate", "baseline")


def parts(whole: Table) -> list[Table]:
    """Return the table of comparisons in parts, as the page shows it; the CSV has it whole."""
    result, start = [], len(COMPARED_KEYS)
    for title, text in PARTS.items():
        end = start + len([line for line in text.splitlines() if line.strip()])
        chosen = [*whole.columns[: len(COMPARED_KEYS)], *whole.columns[start:end]]
        result.append(replace(whole, title=f"{whole.title}: {title}", columns=chosen))
        start = end
    return result


def contract(found: Sequence[Comparison]) -> Table:
    """Return what differed between compared runs, the gravest first; equal rows are joined."""
    rows: dict[tuple[Any, ...], list[str]] = {}
    for c in found:
        for d in c.differences:
            pairs = f"{d.pairs} of {d.of}"
            has, was = (_values(side) for side in (d.candidate, d.baseline))
            row = (d.level, d.fact, c.candidate, has, c.baseline, was, pairs, d.why)
            rows.setdefault(row, []).append(f"{c.workload} at {c.scale}")
    keys = ("level", "fact", "candidate", "is", "baseline", "was", "pairs", "why")
    order = (BLOCKS, FLAGGED, DECLARED)
    return table(
        "contract",
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
        [
            {**dict(zip(keys, row)), "where": some(places)}
            for row, places in sorted(rows.items(), key=lambda item: order.index(item[0][0]))
        ],
        "Declared: a variant says so, it is what is compared. Flagged: undeclared, stands beside "
        "the verdict. Not comparable: takes the verdict away. Facts that only one framework has "
        "are not listed between frameworks.",
    )


def _values(values: Sequence[str]) -> str:
    return ", ".join(v[:12] + "…" if len(v) == 64 else v for v in values)


def some(places: Sequence[str]) -> str:
    """Return the first three places, and how many more there are."""
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more


def threats(found: Sequence[Threat]) -> Table:
    """Return the threats to validity."""
    specification = "name | Threat\nwhere | Where\nwhat | What was found"
    return table("threats", "Threats to validity", specification, [asdict(t) for t in found])


def runs(frame: pd.DataFrame) -> Table:
    """Return one row for each run, whatever became of it."""
    values = frame.astype(object).where(frame.notna(), None)
    if "target_reached" in frame:
        unmet = frame["target_reached"].eq(False)
        values.loc[unmet, "target_seconds"] = Absent(reason="not met")
    untimed = frame["step_median"].isna() & frame["step_absent"].notna()
    values.loc[untimed, "step_median"] = frame.loc[untimed, "step_absent"].map(
        lambda why: Absent(reason=why)
    )
    return table(
        "runs",
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
        values.to_dict("records"),
    )
