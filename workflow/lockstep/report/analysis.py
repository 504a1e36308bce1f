"""Everything that a report says, as values: what the page shows and what ``report.json`` holds."""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from lockstep.report import (
    dataframes,
    learning,
    load,
    proof,
    scaling,
    sentences,
    step_losses,
    study_tables,
    threats_to_validity,
    time_tables,
    verdicts,
    what_was_run,
)
from lockstep.report.comparability import difference_text
from lockstep.report.dataframes import View
from lockstep.report.load import FINISHED, Record, Records
from lockstep.report.step_losses import Curve
from lockstep.report.tables import Absent, Table
from lockstep.report.threats_to_validity import Threat
from lockstep.report.verdicts import Comparison
from lockstep.study import Study

SCHEMA = "lockstep-report/2"

DEFAULTS = {"margin": 0.01, "precision": 0.02}
"""For a study.json that is older than the config's `report` section."""


@dataclass(frozen=True, kw_only=True)
class WorkloadPart:
    """What the report says of one workload.

    Attributes:
        view: what its records hold.
        tables: by short name, in the page's order.
        curves: differences of losses during training.
        windows: `variant`, `seed`, `step` and `seconds` (of a step) of timed windows.
    """

    name: str
    view: View
    tables: Mapping[str, Table]
    curves: Sequence[Curve]
    windows: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the report says of a study."""

    records: Records
    runs: pd.DataFrame
    comparisons: Sequence[Comparison]
    threats: Sequence[Threat]
    workloads: Sequence[WorkloadPart]
    tables: Mapping[str, Table]
    described: Sequence[tuple[str, str]]
    options: Mapping[str, float]

    @property
    def all_tables(self) -> list[Table]:
        """Those of each workload, then those of the study."""
        of_workloads = (part.tables.values() for part in self.workloads)
        return [*itertools.chain(*of_workloads), *self.tables.values()]

    @property
    def partial(self) -> bool:
        """Whether runs of the study are missing or could not be used."""
        return bool(self.records.unfinished)


def options(study: Study) -> dict[str, float]:
    """Return the `report` section of a study's config."""
    return {**DEFAULTS, **study.config.get("report", {})}


def analyse(study: Study) -> Analysis:
    """Read a study's records and work out everything that its report says."""
    records, chosen = load.load(study), options(study)
    comparisons = compare_all(records, chosen["margin"], chosen["precision"])
    runs, epochs = dataframes.runs(records), dataframes.epochs(records)
    cold, parts = dataframes.cold_starts(records), []
    for name in study.config["workloads"]:
        runs_here, rows, starts = (f[f["workload"] == name] for f in (runs, epochs, cold))
        compared = [c for c in comparisons if c.workload == name]
        view = View(
            records=records,
            name=name,
            runs=runs_here,
            epochs=rows,
            cold=starts,
            comparisons=compared,
        )
        curves, courses = step_losses.curves(records, name), windows(records, name)
        parts.append(
            WorkloadPart(name=name, view=view, tables=_tables(view), curves=curves, windows=courses)
        )
    found = threats_to_validity.find(records, runs, comparisons)
    tables = {
        "comparisons": study_tables.comparisons(records, comparisons),
        "contract": study_tables.contract(comparisons),
        "threats": study_tables.threats(found),
        "runs": study_tables.runs(runs),
    }
    return Analysis(
        records=records,
        runs=runs,
        comparisons=comparisons,
        threats=found,
        workloads=parts,
        tables=tables,
        described=what_was_run.describe(records),
        options=chosen,
    )


def _tables(view: View) -> dict[str, Table]:
    made: dict[str, Table | None] = {
        name: make(view.records, view.name)
        for name, make in (("parity", learning.parity), ("layers", learning.layers))
    }
    if len(dataframes.finished(view.runs)):
        made |= {
            "losses": learning.losses(view),
            "final-metric": learning.final_metric(view),
            "target": learning.target(view),
            "step-time": time_tables.step_times(view),
            "time-split": time_tables.time_split(view),
            "preparation": time_tables.preparation(view),
            "break-even": time_tables.break_even(view),
            "scaling": scaling.scaling(view),
            "resources": time_tables.resources(view),
        }
    return {name: table for name, table in made.items() if table is not None}


def windows(records: Records, workload: str) -> pd.DataFrame:
    """Return the timed windows of a few seeds of each variant, at the first scale."""
    scale, parts = records.study.config["scales"][0], []
    counts: dict[str, int] = defaultdict(int)
    for run in records.runs:
        here = (run.workload, run.scale, run.status) == (workload, scale, FINISHED)
        if here and run.windows and counts[run.variant] < step_losses.SEEDS:
            counts[run.variant] += 1
            columns = {"step": run.windows["at"], "seconds": run.windows["seconds_per_step"]}
            parts.append(pd.DataFrame({"variant": run.variant, "seed": run.seed, **columns}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


# Comparisons ----------------------------------------------------------------------------------


def compare_all(records: Records, margin: float, precision: float) -> list[Comparison]:
    """Return the comparisons of a study: every two variants of each workload and scale.

    The variant that stands first in the config is the baseline.
    """
    config = records.study.config
    by_place: dict[tuple[str, str, str], dict[int, Record]] = defaultdict(dict)
    for run in records.runs:
        by_place[run.workload, run.scale, run.variant][run.seed] = run
    unlike, result = _unlike_batches(records), []
    for workload, scale in itertools.product(config["workloads"], config["scales"]):
        sides = []
        for variant in config["variants"]:
            problem = proof.parity_problem(records, workload, variant)
            problems = [why for why in (problem, unlike.get((workload, variant))) if why]
            runs = by_place[workload, scale, variant]
            sides.append(verdicts.side(records, runs, variant, problems))
        result += [
            verdicts.compare(workload, scale, a, b, margin=margin, precision=precision)
            for a, b in itertools.combinations(sides, 2)
        ]
    return verdicts.corrected(result)


def _unlike_batches(records: Records) -> dict[tuple[str, str], str]:
    """Return by workload and variant whose runs of a seed did not read equal batches at all scales.

    A fault in the shared input that hits both sides of a comparison alike shows only here.
    """
    groups: dict[Any, dict[str, Record]] = defaultdict(dict)
    for run in records.runs:
        if run.status == FINISHED and records.study.variant(run.variant)["input"] == "shared":
            group = groups[run.workload, run.variant, run.seed, run.summary["steps"]]
            group.setdefault(run.summary["batches"], run)
    found: dict[tuple[str, str], str] = {}
    for (workload, variant, seed, _), others in groups.items():
        if len({run.scale for run in others.values()}) > 1:
            one, other, *_ = others.values()
            found[workload, variant] = (
                f"{variant} did not read the same batches at every scale: those of seed {seed} "
                f"differ between {one.scale} and {other.scale}"
            )
    return found


# As JSON --------------------------------------------------------------------------------------


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Return all numbers and verdicts, for machines: equal records give equal JSON."""
    return {
        "schema": SCHEMA,
        "study": analysis.records.study.name,
        "partial": analysis.partial,
        "options": dict(analysis.options),
        "what_was_run": dict(analysis.described),
        "runs": analysis.runs["status"].value_counts().to_dict(),
        "verdicts": [verdict_json(c) for c in analysis.comparisons],
        "tables": {t.name: _plain(t.rows) for t in analysis.all_tables},
        "set_apart": [{"name": name, "reason": why} for name, why in analysis.records.apart],
    }


def verdict_json(c: Comparison) -> dict[str, Any]:
    """Return a comparison and its sentences, in JSON's own types."""
    return dict(
        _plain(
            {
                **asdict(c),
                "kind": c.kind,
                "sentence": sentences.sentence(c),
                "quality_kind": c.quality_kind,
                "quality_sentence": sentences.quality_sentence(c),
                "flags": [difference_text(d) for d in c.flags],
                "more": sentences.more_sentence(c),
                "seeds_needed": c.seeds_needed,
            }
        )
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
    return None if value is pd.NA else value
