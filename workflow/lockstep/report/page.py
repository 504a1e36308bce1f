"""The page: one HTML file that needs nothing else."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lockstep import __version__
from lockstep.report import answer, contract, load, overview, picture
from lockstep.report.analysis import Analysis
from lockstep.report.picture import Picture
from lockstep.report.tables import Absent, Column, Table, aligned, shown

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "page.html.j2"
STYLE = HERE / "page.css"

FIGURE = re.compile(r'<figure class="picture.*?</figure>', re.DOTALL)

MOST_ROWS = 300
"""Rows of a table that the page shows; the CSV has all."""


def render(analysis: Analysis, drawn: Mapping[str, Sequence[Picture]]) -> str:
    """Return the page.

    Args:
        drawn: figures by workload, those over the whole study under an empty name; what is not
            among them is left out.
    """
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
        forest=_inlined(drawn.get("", ())).get("verdicts"),
        profile=_inlined(drawn.get("", ())).get("performance-profile"),
        workloads=[
            {
                "name": part.name,
                "tables": {k: table(t) for k, t in part.tables.items()},
                "figures": _inlined(drawn.get(part.name, ())),
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


def says(html: str) -> list[str]:
    """Return what a page says besides its figures, line by line."""
    words = FIGURE.sub("", html)
    return [line.strip() for line in words.splitlines() if line.strip()]


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
        p.name: {"svg": Markup(picture.inline(p)), "title": p.title, "note": p.note}
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
