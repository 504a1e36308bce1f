"""Everything that a report says, as values: what the page shows and what ``report.json`` holds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lockstep.report import differences, frames, load, measures, threats, verdicts
from lockstep.report.differences import Curve
from lockstep.report.load import Records
from lockstep.report.tables import Absent, Column, Table
from lockstep.report.threats import Threat
from lockstep.report.verdicts import Comparison
from lockstep.study import Study

SCHEMA = "lockstep-report/1"

DEFAULTS = {"margin": 0.01, "precision": 0.02}
"""For a study.json that is older than the config's `report` section."""


@dataclass(frozen=True, kw_only=True)
class WorkloadPart:
    """What is said of one workload.

    Attributes:
        tables: by short name, in the page's order.
        curves: differences of losses during training.
    """

    name: str
    runs: pd.DataFrame
    epochs: pd.DataFrame
    tables: Mapping[str, Table]
    curves: Sequence[Curve]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What is said of a study."""

    records: Records
    runs: pd.DataFrame
    comparisons: Sequence[Comparison]
    threats: Sequence[Threat]
    workloads: Sequence[WorkloadPart]
    tables: Mapping[str, Table]
    apart: Sequence[tuple[str, str]]
    profile: pd.DataFrame | None
    options: Mapping[str, float] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """Whether runs of the study are missing or could not be used."""
        return any(run.status not in (load.FINISHED, load.FAILED) for run in self.records.runs)


def options(study: Study) -> dict[str, float]:
    """Return the `report` section of a study's config."""
    return {**DEFAULTS, **study.config.get("report", {})}


def analyse(study: Study) -> Analysis:
    """Read a study's records and work out everything that its report says."""
    records = load.load(study)
    chosen = options(study)
    runs, epochs = frames.runs(records), frames.epochs(records)
    comparisons = verdicts.compare_all(records, chosen["margin"], chosen["precision"])
    apart = list(records.apart)
    parts = []
    for workload in study.config["workloads"]:
        mine = runs[runs["workload"] == workload]
        compared = [c for c in comparisons if c.workload == workload]
        drawn, problems = differences.curves(records, workload)
        apart += problems
        parts.append(
            WorkloadPart(
                name=workload,
                runs=mine,
                epochs=epochs[epochs["workload"] == workload],
                tables=_tables(records, workload, mine, epochs, compared),
                curves=drawn,
            )
        )
    found = threats.find(records, runs, comparisons)
    tables = {
        "comparisons": _comparisons(comparisons),
        "contract": _contract(comparisons),
        "threats": _threats(found),
        "runs": _runs(runs),
    }
    weak = measures.weak_scaling(records, runs) if "step_median" in runs else None
    if weak:
        tables["weak-scaling"] = weak
    return Analysis(
        records=records,
        runs=runs,
        comparisons=comparisons,
        threats=found,
        workloads=parts,
        tables=tables,
        apart=apart,
        profile=measures.profile(records, runs) if "step_median" in runs else None,
        options=chosen,
    )


def _tables(
    records: Records,
    workload: str,
    runs: pd.DataFrame,
    epochs: pd.DataFrame,
    comparisons: Sequence[Comparison],
) -> dict[str, Table]:
    made: dict[str, Table | None] = {"parity": measures.parity(records, workload)}
    if runs["finished"].any():
        made |= {
            "losses": measures.losses(records, workload, epochs[epochs["workload"] == workload]),
            "final-metric": measures.final_metric(records, workload, runs),
            "equivalence": measures.quality(records, workload, comparisons),
            "target": measures.target(records, workload, runs),
            "step-time": measures.step_times(records, workload, runs),
            "time-split": measures.time_split(records, workload, runs),
            "preparation": measures.preparation(records, workload, runs),
            "break-even": measures.break_even(records, workload, runs, comparisons),
            "scaling": measures.scaling(records, workload, runs),
            "resources": measures.resources(records, workload, runs),
        }
    return {name: table for name, table in made.items() if table is not None}


# Tables over the whole study ------------------------------------------------------------------


def _comparisons(comparisons: Sequence[Comparison]) -> Table:
    rows = [
        {
            "workload": c.workload,
            "scale": c.scale,
            "candidate": c.candidate,
            "baseline": c.baseline,
            "verdict": c.kind,
            "n": len(c.seeds),
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
            "method": c.step_time.method if c.step_time else "none",
        }
        for c in comparisons
    ]
    return Table(
        name="comparisons",
        title="All comparisons",
        columns=[
            Column(key="workload", label="Workload"),
            Column(key="scale", label="Scale"),
            Column(key="candidate", label="Variant"),
            Column(key="baseline", label="against"),
            Column(key="verdict", label="Step time is"),
            Column(key="n", label="Pairs", unit="count"),
            Column(key="step", label="Step time, ratio", decimals=3),
            Column(key="step_low", label="95% from", decimals=3),
            Column(key="step_high", label="to", decimals=3),
            Column(key="p", label="p", digits=2),
            Column(key="p_holm", label="p, Holm", digits=2),
            Column(key="seeds_needed", label="Seeds for the set precision", unit="count"),
            Column(key="target", label="Time to target, ratio", decimals=3),
            Column(key="target_low", label="95% from", decimals=3),
            Column(key="target_high", label="to", decimals=3),
            Column(key="run", label="Whole run, ratio", decimals=3),
            Column(key="run_low", label="95% from", decimals=3),
            Column(key="run_high", label="to", decimals=3),
            Column(key="quality", label="Final metric is"),
            Column(key="difference", label="Difference", decimals=4),
            Column(key="difference_low", label="90% from", decimals=4),
            Column(key="difference_high", label="to", decimals=4),
            Column(key="quality_p_holm", label="TOST p, Holm", digits=2),
            Column(key="method", label="Interval of ratios"),
        ],
        rows=rows,
        note=(
            "Ratios are the variant's time over the other's, paired by seed; below 1 the variant "
            "is faster. Only step time carries a verdict; the other ratios are without correction."
        ),
    )


def _ratio_cells(name: str, ratio: Any) -> dict[str, Any]:
    if ratio is None:
        return {}
    return {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}


def _contract(comparisons: Sequence[Comparison]) -> Table:
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


def _threats(found: Sequence[Threat]) -> Table:
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


def _runs(runs: pd.DataFrame) -> Table:
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
        Column(key="attempts", label="Starts", unit="count"),
    ]
    known = [column for column in columns if column.key in runs]
    values = runs[[column.key for column in known]].astype(object)
    if "target_seconds" in values:
        censored = runs["target_reached"].eq(False)
        values.loc[censored, "target_seconds"] = Absent(reason="not met")
    if "attempts" in values:
        values["attempts"] = [None if pd.isna(v) else int(v) for v in values["attempts"]]
    values["reason"] = [None if pd.isna(v) else v for v in values["reason"]]
    rows = values.to_dict("records")
    return Table(name="runs", title="All runs", columns=known, rows=rows)


# As JSON --------------------------------------------------------------------------------------


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Return all numbers and verdicts, for machines: equal records give equal JSON."""
    tables = [t for part in analysis.workloads for t in part.tables.values()]
    tables += analysis.tables.values()
    return {
        "schema": SCHEMA,
        "study": analysis.records.study.name,
        "partial": analysis.partial,
        "options": dict(analysis.options),
        "runs": analysis.runs["status"].value_counts().to_dict(),
        "verdicts": [verdict_json(c) for c in analysis.comparisons],
        "tables": {t.name: [_plain(_kept(t, row)) for row in t.rows] for t in tables},
        "set_apart": [{"name": name, "reason": reason} for name, reason in analysis.apart],
    }


def _kept(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    return {column.key: row.get(column.key) for column in table.columns}


def verdict_json(c: Comparison) -> dict[str, Any]:
    """Return a comparison and what is said of it, in JSON's own types."""
    values = asdict(c)
    return _plain(
        {
            **values,
            "kind": c.kind,
            "sentence": verdicts.sentence(c),
            "quality_kind": c.quality_kind,
            "quality_sentence": verdicts.quality_sentence(c),
            "more": verdicts.more_sentence(c),
            "seeds_needed": c.seeds_needed,
        }
    )


def _plain(value: Any) -> Any:
    """Return a value in JSON's own types; what is not a number is null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Absent):
        return {"absent": value.reason}
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
