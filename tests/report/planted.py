"""Differences that are planted into the records of a study, and what is said of the pair."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lockstep.report import analysis, comparability, sentences
from lockstep.report.verdicts import Comparison
from lockstep.study.run import Run
from tests.report.report_studies import TWO, Edit, write


def comparison(root: Path, edit: Edit | None = None, **options: Any) -> Comparison:
    """Write a study of two variants and return its only comparison."""
    study = write(root, **{"variants": TWO, "edit": edit, **options})
    (only,) = analysis.analyse(study).comparisons
    return only


def on_jax(change: Edit) -> Edit:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        if run.variant == "jax-jit":
            change(run, summary)

    return edit


def set_at(path: str, value: Any) -> Edit:
    *folders, last = path.split(".")

    def change(run: Run, summary: dict[str, Any]) -> None:
        inner = summary
        for name in folders:
            inner = inner[name]
        inner[last] = value

    return change


def text_of(c: Comparison) -> str:
    return sentences.sentence(c) + " ".join(comparability.difference_text(d) for d in c.differences)


def changed(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
