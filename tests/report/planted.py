"""Differences that are planted into the records of a study, and what is said of the pair."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lockstep.records import load
from lockstep.records.load import Records
from lockstep.report import analysis
from lockstep.report.verdicts import Comparison
from lockstep.study.run import Run
from tests.archive.tamper import put
from tests.report.report_studies import TWO, Edit, write

_FAIR: dict[str, Records] = {}
"""Studies without any difference, by their options: each is written once."""


def comparison(root: Path, edit: Edit | None = None, **options: Any) -> Comparison:
    """Return the only comparison of a study of two variants.

    Args:
        edit: changes what the records say of a run, after they were read.
    """
    options = {"variants": TWO, **options}
    key = repr(options)
    if key not in _FAIR or any(map(callable, options.values())):
        _FAIR[key] = load.load(write(root, **options))
    records, runs = _FAIR[key], []
    for run, record in zip(records.study.runs, records.runs, strict=True):
        summary = copy.deepcopy(dict(record.summary))
        if edit:
            edit(run, summary)
        runs.append(replace(record, summary=summary))
    (only,) = analysis.compare_all(replace(records, runs=runs))
    return only


def analysed(root: Path, **options: Any) -> analysis.Analysis:
    """Return the analysis of a study, of two variants unless options say otherwise."""
    return analysis.analyse(write(root, **{"variants": TWO, **options}))


def on(change: Edit, **which: Any) -> Edit:
    """Return an edit of those runs alone whose fields are these."""

    def edit(run: Run, summary: dict[str, Any]) -> None:
        if all(getattr(run, name) == value for name, value in which.items()):
            change(run, summary)

    return edit


def on_jax(change: Edit, **which: Any) -> Edit:
    return on(change, variant="jax-jit", **which)


def set_at(path: str, value: Any) -> Edit:
    return lambda run, summary: put(summary, path, value)


def update(**values: Any) -> Edit:
    return lambda run, summary: summary.update(values)


def threats_of(found: analysis.Analysis) -> dict[str, str]:
    """Return what was found, by the name of the threat."""
    return {threat["name"]: threat["what"] for threat in found.tables["threats"].rows}


def changed(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
