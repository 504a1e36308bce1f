"""Two finished studies against each other: another cluster, another library version, a change.

Each variant is compared with itself, paired by seed, with the statistics of the report. Hardware,
libraries and code are what is compared; recipe, data, weights and batches must be the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.errors import UserError
from lockstep.report import analysis, load, proof, sentences, verdicts
from lockstep.report.comparability import DECLARED, difference_text
from lockstep.report.load import Record, Records
from lockstep.report.verdicts import Comparison
from lockstep.study import Study

SCHEMA = "lockstep-comparison/1"


@dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """Two studies and what may be said of them.

    Attributes:
        a, b: how sentences call them.
        only: workload, variant and scale that only one of them has.
    """

    a: str
    b: str
    comparisons: Sequence[tuple[str, Comparison]]
    only: Sequence[str]
    apart: Sequence[tuple[str, str]]


Group = tuple[str, str, str]


def open_study(folder: Path) -> Records:
    """Read a study from its folder, wherever that was moved to.

    Raises:
        UserError: the folder holds no study.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise UserError(f"{folder}: not a study's folder, it has no study.json")
    try:
        study = Study.at(folder)
        records = load.load(study)
        study.traces(), analysis.options(study)  # what is read later is there too
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not the complete config of a study that this version reads ({error!r})"
        ) from error
    return records


def compare(a: Path, b: Path, *, called: tuple[str, str] | None = None) -> StudyComparison:
    """Compare the studies in two folders.

    Args:
        called: what the folders are called where studies have one name; their paths if None.

    Raises:
        UserError: a folder holds no study, or the two have nothing in common.
    """
    both = [open_study(folder) for folder in (a, b)]
    names = [records.study.name for records in both]
    own = called or (str(a), str(b))
    names = [*own] if names[0] == names[1] else names
    groups: list[dict[Group, dict[int, Record]]] = [{}, {}]
    for records, grouped in zip(both, groups):
        for run in records.runs:
            grouped.setdefault((run.workload, run.variant, run.scale), {})[run.seed] = run
    shared = [group for group in groups[0] if group in groups[1]]
    if not shared:
        raise UserError(f"{own[0]} and {own[1]} have no workload, variant and scale in common")
    chosen, made = analysis.options(both[1].study), []
    for workload, variant, scale in shared:
        sides = []
        for records, grouped, name in zip(both, groups, names):
            problem = proof.parity_problem(records, workload, variant)
            problems = [f"in study {records.study.name}, {problem}"] if problem else []
            runs = grouped[workload, variant, scale]
            sides.append(verdicts.side(records, runs, f"{variant} of {name}", problems))
        options: dict[str, Any] = {name: chosen[name] for name in ("margin", "precision")}
        made.append(verdicts.compare(workload, scale, *sides, **options, between_studies=True))
    return StudyComparison(
        a=names[0],
        b=names[1],
        comparisons=[(key[1], c) for key, c in zip(shared, verdicts.corrected(made))],
        only=[
            f"only {name} has {' '.join(group)}"
            for name, own, other in zip(names, groups, reversed(groups))
            for group in own
            if group not in other
        ],
        apart=[(f"{n}: {what}", why) for n, r in zip(names, both) for what, why in r.apart],
    )


def lines(comparison: StudyComparison) -> list[str]:
    """Return what the terminal shows."""
    result = [f"{comparison.b} against {comparison.a}"]
    for _, c in comparison.comparisons:
        result.append(f"{c.workload} at {c.scale}: {sentences.sentence(c)}")
        result.append(f"  {sentences.quality_sentence(c)}")
        result += [f"  flagged: {difference_text(d)}" for d in c.flags]
        result += [f"  left out: seed {seed}: {why}" for seed, why in c.left_out]
        result += [f"  left out of step time: seed {seed}: {why}" for seed, why in c.untimed]
    declared = {
        f"  {d.fact}: {' / '.join(d.baseline)} -> {' / '.join(d.candidate)}"
        for _, c in comparison.comparisons
        for d in c.differences
        if d.level == DECLARED
    }
    if declared:
        result += ["what differs between the studies:", *sorted(declared)]
    result += comparison.only
    return result + [f"set apart: {name}: {reason}" for name, reason in comparison.apart]


def as_json(comparison: StudyComparison) -> dict[str, Any]:
    """Return everything for machines."""
    return {
        "schema": SCHEMA,
        "a": comparison.a,
        "b": comparison.b,
        "comparisons": [
            {"variant": variant, **analysis.verdict_json(c)}
            for variant, c in comparison.comparisons
        ],
        "only": list(comparison.only),
        "set_apart": [{"name": name, "reason": why} for name, why in comparison.apart],
    }
