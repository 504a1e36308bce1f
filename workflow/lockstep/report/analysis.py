"""Everything that a report says, as values: what the page shows and what ``report.json`` holds."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lockstep.records import load
from lockstep.records.load import Records
from lockstep.report import (
    conditions,
    dataframes,
    deploy_tables,
    result_tables,
    sentences,
    time_tables,
    verdicts,
)
from lockstep.report.comparability import difference_text
from lockstep.report.dataframes import Workload
from lockstep.report.tables import Absent, Table, table
from lockstep.report.verdicts import Comparison
from lockstep.study import Study

SCHEMA = "lockstep-report/4"

TABLES = {
    "parity": result_tables.parity,
    "epochs": result_tables.epochs,
    "final-metric": result_tables.final_metric,
    "time-to-target": result_tables.target,
    "step-time": time_tables.step_times,
    "time-split": time_tables.time_split,
    "break-even": time_tables.break_even,
    "scaling": time_tables.scaling,
    "resources": time_tables.resources,
    "deploy-routes": deploy_tables.routes,
    "deploy-times": deploy_tables.times,
    "deploy-compressed": deploy_tables.compressed,
}
"""Tables of a workload by name, in the page's order; those but `ALWAYS` are of finished runs."""
ALWAYS = ("parity", "deploy-routes")

MOST_SHOWN = 12  # comparisons at the top of the page


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the report says of a study."""

    records: Records
    runs: pd.DataFrame
    comparisons: Sequence[Comparison]
    workloads: Sequence[Workload]
    tables: Mapping[str, Table]
    described: Sequence[tuple[str, str]]

    @property
    def shown(self) -> list[Comparison]:
        """The comparisons at the top of the page: all, or of many those with the first variant."""
        every, first = self.comparisons, next(iter(self.records.study.config["variants"]))
        return [c for c in every if len(every) <= MOST_SHOWN or c.baseline == first]

    @property
    def all_tables(self) -> list[Table]:
        """Those of each workload, then those of the study."""
        of_workloads = (view.tables.values() for view in self.workloads)
        return [*itertools.chain(*of_workloads), *self.tables.values()]


def analyse(study: Study, records: Records | None = None) -> Analysis:
    """Work out everything that a study's report says.

    Args:
        records: of the study; they are read if none are given.
    """
    records = records or load.load(study)
    comparisons = compare_all(records)
    runs = dataframes.runs(records)
    threats = conditions.threats(records, runs, comparisons)
    frames = {
        "runs": runs,
        "epochs": dataframes.epochs(records),
        "cold": dataframes.cold_starts(records),
    }
    workloads = []
    for name in study.config["workloads"]:
        view = Workload(
            records=records,
            name=name,
            comparisons=[c for c in comparisons if c.workload == name],
            **{key: frame[frame["workload"] == name] for key, frame in frames.items()},
        )
        wanted = [*TABLES] if len(dataframes.finished(view.runs)) else ALWAYS
        made = {key: TABLES[key](view) for key in wanted}
        named = {key: replace(t, name=f"{name}-{key}") for key, t in made.items() if t}
        workloads.append(replace(view, tables=named))
    tables = {
        **result_tables.comparisons(records, comparisons),
        "contract": result_tables.contract(comparisons),
        "threats": table("Threats to validity", conditions.COLUMNS, threats),
        "runs": result_tables.runs(runs),
        "excluded": table(
            "Excluded: found, but not used in any number",
            "name | What\nreason | Why",
            [{"name": name, "reason": why} for name, why in records.excluded],
        ),
    }
    return Analysis(
        records=records,
        runs=runs,
        comparisons=comparisons,
        workloads=workloads,
        tables={key: replace(table, name=key) for key, table in tables.items()},
        described=conditions.what_was_run(records),
    )


def compare_all(records: Records) -> list[Comparison]:
    """Return the comparisons of a study: every two variants of each workload and scale.

    The variant that stands first in the config is the baseline.
    """
    config, result = records.study.config, []
    for workload, scale in itertools.product(config["workloads"], config["scales"]):
        sides = [verdicts.side(records, None, workload, v, scale) for v in config["variants"]]
        pairs = itertools.combinations(sides, 2)
        result += [verdicts.compare(a, b, config["report"]) for a, b in pairs]
    return verdicts.corrected(result)


# As JSON --------------------------------------------------------------------------------------


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Return all numbers and verdicts, for machines: equal records give equal JSON."""
    return {
        "schema": SCHEMA,
        "study": analysis.records.study.name,
        "partial": bool(analysis.records.unfinished),
        "options": analysis.records.study.config["report"],
        "what_was_run": dict(analysis.described),
        "runs": analysis.runs["status"].value_counts().to_dict(),
        "verdicts": [verdict_json(c) for c in analysis.comparisons],
        "tables": {t.name: _plain(t.rows) for t in analysis.all_tables},
    }


def verdict_json(c: Comparison) -> dict[str, Any]:
    """Return a comparison and its sentences, in JSON's own types."""
    words = {
        "kind": c.kind,
        "sentence": sentences.sentence(c),
        "quality_kind": c.quality_kind,
        "quality_sentence": sentences.quality_sentence(c),
        "flags": [difference_text(d) for d in c.flags],
        "more": sentences.more_sentence(c),
        "seeds_needed": c.seeds_needed,
    }
    return dict(_plain({**asdict(c), **words}))


def _plain(value: Any) -> Any:
    """Return a value in JSON's own types; what is not a number is null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Absent):
        return {"absent": value.reason}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return None if value is pd.NA else value
