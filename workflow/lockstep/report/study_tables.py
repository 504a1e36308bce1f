"""The tables over the whole study: comparisons, differences, threats, runs."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from lockstep.records.load import Records
from lockstep.report.comparability import GRAVEST
from lockstep.report.sentences import metric_decimals, some
from lockstep.report.tables import Absent, Table, table, with_reasons
from lockstep.report.threats_to_validity import Threat
from lockstep.report.verdicts import Comparison

COMPARED = "workload | Workload\nscale | Scale\ncandidate | Variant\nbaseline | against\n"
PARTS = {
    "step time": """kind | Step time is
        beside | Forbidden by, or flagged
        step_time.n | Pairs | | d
        step_time.value | Step time, ratio | | 5g
        step_time.low | 95% from | | 5g
        step_time.high | to | | 5g
        step_time.p | p | | 2g
        p_holm | p, Holm | | 2g
        seeds_needed | Seeds for the set precision | | d
        """,
    "time to target and whole run": """to_target.value | Time to target, ratio | | 5g
        to_target.low | 95% from | | 5g
        to_target.high | to | | 5g
        whole_run.value | Whole run, ratio | | 5g
        whole_run.low | 95% from | | 5g
        whole_run.high | to | | 5g
        """,
    "final metric": """quality_kind | Final metric is
        quality.difference | Difference | | {decimals}f
        quality.low | 90% from | | {decimals}f
        quality.high | to | | {decimals}f
        quality.margin | Margin ± | | 2g
        quality_p_holm | TOST p, Holm | | 2g
        different_p_holm | p of a difference, Holm | | 2g
        within | Within one framework | | {decimals}f
        first_step.largest | Largest difference of losses | | 2g
        """,
}
"""Columns of the parts in which the page shows the table of comparisons: no page has the width."""

UNKNOWN = Absent("no two comparable variants of one framework")


def comparisons(records: Records, found: Sequence[Comparison]) -> Table:
    """Return every comparison with its numbers."""
    rows, within = [], _within(records, found)
    for c in found:
        problem = next(iter([*c.problems, *c.timing_problems]), None)
        derived = ("kind", "quality_kind", "seeds_needed")
        row = asdict(c) | {name: getattr(c, name) for name in derived}
        row["beside"] = problem or ", ".join(f"{d.label} ({d.fact})" for d in c.flags) or None
        row["within"] = within.get((c.workload, c.scale), UNKNOWN) if c.quality else None
        rows.append(row)
    decimals = max((metric_decimals(c.quality.margin) for c in found if c.quality), default=4)
    return table(
        "All comparisons",
        COMPARED + "".join(PARTS.values()).format(decimals=decimals),
        pd.json_normalize(rows),
        "Ratios are the variant's time over the other's, paired by seed, with t intervals; below 1 "
        "the variant is faster. Only step time carries a verdict; the other ratios are without "
        "correction. The ratio of whole runs is of runs that did not start cold. “Within one "
        "framework” is the mean absolute difference of the metric, at equal seed, between variants "
        "of one framework and precision: what rounding within a framework does to it.",
    )


def _within(records: Records, found: Sequence[Comparison]) -> dict[tuple[str, str], float]:
    """Return the largest mean absolute difference within a framework, by workload and scale."""
    result: dict[tuple[str, str], float] = {}
    for c in found:
        a, b = (records.study.variant(v) for v in (c.baseline, c.candidate))
        same = (a["framework"], a["precision"]) == (b["framework"], b["precision"])
        if same and c.quality and not c.problems:
            runs = [records.by_side[c.workload, v, c.scale] for v in (c.baseline, c.candidate)]
            values = [[side[s].summary["metrics"][c.metric] for s in c.seeds] for side in runs]
            place, gap = (c.workload, c.scale), float(np.abs(np.diff(values, axis=0)).mean())
            result[place] = max(result.get(place, 0.0), gap)
    return result


def parts(whole: Table) -> list[Table]:
    """Return the table of comparisons in parts, as the page shows it; the CSV has it whole.

    The note stands below the last one.
    """
    ids, result = COMPARED.count("\n"), []
    rest = iter(whole.columns[ids:])
    for title, text in PARTS.items():
        chosen = [next(rest) for line in text.splitlines() if line.strip()]
        columns = [*whole.columns[:ids], *chosen]
        part = replace(whole, title=f"{whole.title}: {title}", columns=columns, note="")
        result.append(part)
    return [*result[:-1], replace(result[-1], note=whole.note)]


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


def threats(found: Sequence[Threat]) -> Table:
    """Return the threats to validity."""
    specification = "name | Threat\nwhere | Where\nwhat | What was found"
    return table("Threats to validity", specification, [asdict(t) for t in found])


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
