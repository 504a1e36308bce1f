"""Two finished studies against each other: another cluster, another library version, a change.

Each variant is compared with itself, paired by seed, with the statistics of the report. Hardware,
libraries and code are what is compared; recipe, data, weights and batches must be the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.errors import UserError
from lockstep.records import load
from lockstep.records.load import Records
from lockstep.report import analysis, sentences, verdicts
from lockstep.report.comparability import DECLARED
from lockstep.report.verdicts import Comparison
from lockstep.study import Study

SCHEMA = "lockstep-comparison/2"


@dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """Two studies and the conclusions about them."""

    names: Sequence[str]  # how sentences call them
    comparisons: Sequence[tuple[str, Comparison]]  # with the variant of each
    only: Sequence[str]  # workload, variant and scale that only one of them has
    excluded: Sequence[tuple[str, str]]


def open_study(folder: Path) -> Records:
    """Read a study from its folder, wherever that was moved to.

    Raises:
        UserError: the folder holds no study.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise UserError(f"{folder}: not a study's folder, it has no study.json")
    try:
        study = Study.load(folder)
        study.traces(), dict(study.config["report"])  # what is read later is there too
        return load.load(study)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not the complete config of a study that this version reads ({error!r})"
        ) from error


def compare(a: Path, b: Path, *, called: tuple[str, str]) -> StudyComparison:
    """Compare the studies in two folders.

    Args:
        called: what the folders are called, also in sentences where the studies have one name.

    Raises:
        UserError: a folder holds no study, or the two have nothing in common.
    """
    both = [open_study(folder) for folder in (a, b)]
    names = [records.study.name for records in both]
    names = [*called] if names[0] == names[1] else names
    shared = [group for group in both[0].by_side if group in both[1].by_side]
    if not shared:
        raise UserError(f"{' and '.join(called)} have no workload, variant and scale in common")
    options, made = both[1].study.config["report"], []
    for group in shared:
        before, after = (verdicts.side(*pair, *group) for pair in zip(both, names))
        made.append(verdicts.compare(before, after, options, between_studies=True))
    return StudyComparison(
        names=names,
        comparisons=[(key[1], c) for key, c in zip(shared, verdicts.corrected(made))],
        only=[
            f"only {name} has {' '.join(group)}"
            for name, records in zip(names, both)
            for group in records.by_side
            if group not in shared
        ],
        excluded=[(f"{n}: {what}", why) for n, r in zip(names, both) for what, why in r.excluded],
    )


def lines(comparison: StudyComparison) -> list[str]:
    """Return what the terminal shows."""
    result = [f"{comparison.names[1]} against {comparison.names[0]}"]
    for _, c in comparison.comparisons:
        result += sentences.terminal_lines(analysis.verdict_json(c), quality=True)
    declared = {
        f"  {d.fact}: {' / '.join(d.baseline)} -> {' / '.join(d.candidate)}"
        for _, c in comparison.comparisons
        for d in c.differences
        if d.level == DECLARED
    }
    if declared:
        result += ["what differs between the studies:", *sorted(declared)]
    result += comparison.only
    return result + [f"excluded: {name}: {reason}" for name, reason in comparison.excluded]


def as_json(comparison: StudyComparison) -> dict[str, Any]:
    """Return everything for machines."""
    return {
        "schema": SCHEMA,
        "a": comparison.names[0],
        "b": comparison.names[1],
        "comparisons": [
            {"variant": name, **analysis.verdict_json(c)} for name, c in comparison.comparisons
        ],
        "only": list(comparison.only),
        "excluded": [{"name": name, "reason": why} for name, why in comparison.excluded],
    }
