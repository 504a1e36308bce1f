"""The page: one HTML file that needs nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from lockstep import __version__
from lockstep.report import (
    answer,
    contract,
    differences,
    drawing,
    figures_learning,
    figures_speed,
    frames,
    learning,
    load,
    overview,
)
from lockstep.report.analysis import Analysis, WorkloadPart
from lockstep.report.columns import groups as grouped
from lockstep.report.drawing import Picture
from lockstep.report.tables import Absent, Column, Table, aligned, shown

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "page.html.j2"
STYLE = HERE / "page.css"

MOST_ROWS = 300
"""Rows of a table that the page shows; the CSV has all."""


def draw(analysis: Analysis) -> dict[str, list[Picture]]:
    """Return all figures by workload; those over the whole study under an empty name."""
    styles = drawing.looks(analysis.records.study.config["variants"])
    drawn = {part.name: list(_pictures(analysis, part, styles)) for part in analysis.workloads}
    study = [figures_speed.forest(analysis.comparisons, styles)]
    if analysis.profile is not None:
        study.append(figures_speed.profile_steps(analysis.profile, styles))
    drawn[""] = [picture for picture in study if picture]
    return drawn


def _pictures(
    analysis: Analysis, part: WorkloadPart, styles: Mapping[str, drawing.Look]
) -> Sequence[Picture]:
    records, name = analysis.records, part.name
    verdict = records.parity.get(name)
    made = [figures_learning.parity_curves(name, verdict, styles) if verdict else None]
    if len(frames.finished(part.runs)):
        groups = list(grouped(records, part.runs))
        first = records.study.config["scales"][0]
        metric = records.study.workload(name)["target"]["metric"]
        made += [
            figures_learning.loss_curves(
                name,
                part.epochs[part.epochs["scale"] == first],
                styles,
                differences.one_scale(records),
            ),
            figures_learning.difference_curves(name, part.curves, differences.limits(records)),
            figures_speed.dots(
                f"{name}-final-metric", f"Final test {metric}", groups, "metric", "", styles
            ),
            figures_speed.dots(
                f"{name}-time-to-target",
                "Training time to the target",
                list(to_target(records, part.runs)),
                "target_seconds",
                "s",
                styles,
                censored="target_reached",
            ),
            figures_speed.dots(
                f"{name}-step-time", "Step time", groups, "step_median", "ms", styles, scale=1e3
            ),
            figures_speed.split_bars(name, part.tables["time-split"].rows),
        ]
        if "scaling" in part.tables:
            made.append(figures_speed.scaling_lines(name, part.tables["scaling"].rows, styles))
    return [picture for picture in made if picture]


def to_target(records: load.Records, runs: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the groups of runs as the table of times to target counts them."""
    for scale, variant, group in grouped(records, runs, frames.ended):
        if len(group):
            times, reached = learning.to_target(group)
            yield scale, variant, group.assign(target_seconds=times, target_reached=reached)


def render(analysis: Analysis, drawn: Mapping[str, Sequence[Picture]]) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    study = analysis.records.study
    config = study.config
    return environment.from_string(TEMPLATE.read_text()).render(
        style=Markup(STYLE.read_text()),
        version=__version__,
        study=study.name,
        counts=analysis.runs["status"].value_counts().to_dict(),
        total=len(analysis.runs),
        partial=analysis.partial,
        unfinished=analysis.records.unfinished,
        apart=analysis.apart,
        variants=list(config["variants"]),
        scales=config["scales"],
        seeds=config["seeds"],
        answers=answer.places(analysis),
        hidden=len(analysis.comparisons) - len(answer.carded(analysis)),
        cards=len(answer.carded(analysis)),
        forest=_inlined(drawn[""]).get("verdicts"),
        profile=_inlined(drawn[""]).get("performance-profile"),
        workloads=[
            {
                "name": part.name,
                "tables": {k: table(t) for k, t in part.tables.items()},
                "figures": _inlined(drawn[part.name]),
                "recipe": study.workload(part.name),
            }
            for part in analysis.workloads
        ],
        tables={k: table(t) for k, t in analysis.tables.items()},
        comparisons=[table(t) for t in overview.parts(analysis.tables["comparisons"])],
        contract=_contract(analysis.tables["contract"]),
        threats=analysis.threats,
        options=analysis.options,
    )


def _contract(source: Table) -> dict[str, dict[str, Any]]:
    """Return the contract diff in two: what is flagged or worse, and what is declared."""
    declared = [row for row in source.rows if row["level"] == contract.DECLARED]
    others = [row for row in source.rows if row["level"] != contract.DECLARED]
    return {
        "flagged": table(replace(source, rows=others, title="Undeclared differences")),
        "declared": table(replace(source, rows=declared, title="Declared differences", note="")),
    }


def _inlined(pictures: Sequence[Picture]) -> dict[str, dict[str, Any]]:
    return {
        p.name: {"svg": Markup(drawing.inline(p)), "title": p.title, "note": p.note}
        for p in pictures
    }


def table(source: Table) -> dict[str, Any]:
    """Return a table as the template wants it: texts and classes.

    A column that nobody could fill, for one reason, becomes a sentence below the table.
    """
    rows = source.rows
    if len(rows) > MOST_ROWS:
        odd = [row for row in rows if row.get("status", load.FINISHED) != load.FINISHED]
        even = [row for row in rows if row.get("status", load.FINISHED) == load.FINISHED]
        rows = [*odd, *even][:MOST_ROWS]
    values = {c.key: [row.get(c.key) for row in rows] for c in source.columns}
    empty = {c.label: reason for c in source.columns if (reason := _all_absent(values[c.key]))}
    columns = [aligned(c, values[c.key]) for c in source.columns if c.label not in empty]
    return {
        "name": source.name,
        "title": source.title,
        "note": source.note,
        "empty": [f"{label}: absent, {reason}." for label, reason in empty.items()],
        "hidden": len(source.rows) - len(rows),
        "head": [
            {"label": c.label, "unit": "" if c.unit == "count" else c.unit, "numeric": c.numeric}
            for c in columns
        ],
        "rows": [[_cell(row.get(c.key), c) for c in columns] for row in rows],
    }


def _all_absent(values: Sequence[Any]) -> str | None:
    """Return the reason if all values are absent for the same one."""
    reasons = {v.reason if isinstance(v, Absent) else None for v in values}
    return reasons.pop() if len(reasons) == 1 else None


def _cell(value: Any, column: Column) -> dict[str, str]:
    text = shown(value, column)
    if isinstance(value, Absent):
        return {"text": text, "class": "absent"}
    if column.numeric and not isinstance(value, str):
        return {"text": text, "class": "n"}
    return {"text": text, "class": "long" if len(text) > 36 else ""}
