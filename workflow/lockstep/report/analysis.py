"""Everything that a report says, as values: what the page shows and what ``report.json`` holds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lockstep.report import (
    differences,
    frames,
    learning,
    load,
    overview,
    scaling,
    sentences,
    speed,
    threats,
    verdicts,
)
from lockstep.report.differences import Curve
from lockstep.report.load import Records
from lockstep.report.tables import Absent, Table
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
    def all_tables(self) -> list[Table]:
        """Those of each workload, then those of the study."""
        return [
            *(t for part in self.workloads for t in part.tables.values()),
            *self.tables.values(),
        ]

    @property
    def partial(self) -> bool:
        """Whether runs of the study are missing or could not be used."""
        return bool(self.records.unfinished)


def options(study: Study) -> dict[str, float]:
    """Return the `report` section of a study's config."""
    return {**DEFAULTS, **study.config.get("report", {})}


def analyse(study: Study) -> Analysis:
    """Read a study's records and work out everything that its report says."""
    records = load.load(study)
    chosen = options(study)
    runs, epochs = frames.runs(records), frames.epochs(records)
    comparisons = verdicts.compare_all(records, chosen["margin"], chosen["precision"])
    parts = []
    for workload in study.config["workloads"]:
        mine = runs[runs["workload"] == workload]
        compared = [c for c in comparisons if c.workload == workload]
        parts.append(
            WorkloadPart(
                name=workload,
                runs=mine,
                epochs=epochs[epochs["workload"] == workload],
                tables=_tables(records, workload, mine, epochs, compared),
                curves=differences.curves(records, workload),
            )
        )
    found = threats.find(records, runs, comparisons)
    tables = {
        "comparisons": overview.comparisons(comparisons),
        "contract": overview.contract(comparisons),
        "threats": overview.threats(found),
        "runs": overview.runs(runs),
    }
    weak = scaling.weak_scaling(records, runs) if "step_median" in runs else None
    if weak:
        tables["weak-scaling"] = weak
    return Analysis(
        records=records,
        runs=runs,
        comparisons=comparisons,
        threats=found,
        workloads=parts,
        tables=tables,
        apart=list(records.apart),
        profile=scaling.profile(records, runs, comparisons) if "step_median" in runs else None,
        options=chosen,
    )


def _tables(
    records: Records,
    workload: str,
    runs: pd.DataFrame,
    epochs: pd.DataFrame,
    comparisons: Sequence[Comparison],
) -> dict[str, Table]:
    made: dict[str, Table | None] = {"parity": learning.parity(records, workload)}
    if len(frames.finished(runs)):
        made |= {
            "losses": learning.losses(records, workload, epochs[epochs["workload"] == workload]),
            "final-metric": learning.final_metric(records, workload, runs),
            "equivalence": learning.quality(records, workload, comparisons),
            "target": learning.target(records, workload, runs),
            "step-time": speed.step_times(records, workload, runs),
            "time-split": speed.time_split(records, workload, runs),
            "preparation": speed.preparation(records, workload, runs),
            "break-even": speed.break_even(records, workload, runs, comparisons),
            "scaling": scaling.scaling(records, workload, runs),
            "resources": speed.resources(records, workload, runs),
        }
    return {name: table for name, table in made.items() if table is not None}


# As JSON --------------------------------------------------------------------------------------


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Return all numbers and verdicts, for machines: equal records give equal JSON."""
    return {
        "schema": SCHEMA,
        "study": analysis.records.study.name,
        "partial": analysis.partial,
        "options": dict(analysis.options),
        "runs": analysis.runs["status"].value_counts().to_dict(),
        "verdicts": [verdict_json(c) for c in analysis.comparisons],
        "tables": {t.name: [_plain(_kept(t, row)) for row in t.rows] for t in analysis.all_tables},
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
            "sentence": sentences.sentence(c),
            "quality_kind": c.quality_kind,
            "quality_sentence": sentences.quality_sentence(c),
            "flags": [verdicts.difference_text(d) for d in c.flags],
            "more": sentences.more_sentence(c),
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
