"""Two finished studies against each other: another cluster, another library version, a change.

Each variant is compared with itself, paired by seed, with the statistics of the report. Hardware,
libraries and code are what is compared; recipe, data, weights and batches must be the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.errors import UserError
from lockstep.report import analysis, contract, load, proof, sentences, verdicts
from lockstep.report.facts import facts_of
from lockstep.report.load import Record, Records
from lockstep.report.verdicts import Comparison, Side
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


def compare(a: Path, b: Path) -> StudyComparison:
    """Compare the studies in two folders.

    Raises:
        UserError: a folder holds no study, or the two have nothing in common.
    """
    first, second = open_study(a), open_study(b)
    names = (first.study.name, second.study.name)
    if names[0] == names[1]:
        names = (str(a), str(b))
    groups = [_groups(records) for records in (first, second)]
    shared = [group for group in groups[0] if group in groups[1]]
    if not shared:
        raise UserError(f"{a} and {b} have no workload, variant and scale in common")
    chosen = analysis.options(second.study)
    made = []
    for group in shared:
        workload, variant, scale = group
        sides = [
            _side(records, mine[group], f"{variant} of {name}")
            for records, mine, name in zip((first, second), groups, names, strict=True)
        ]
        made.append(
            verdicts.compare(
                workload,
                scale,
                *sides,
                margin=chosen["margin"],
                precision=chosen["precision"],
                between_studies=True,
            )
        )
    only = [
        f"only {name} has {' '.join(group)}"
        for name, mine, other in zip(names, groups, reversed(groups), strict=True)
        for group in mine
        if group not in other
    ]
    return StudyComparison(
        a=names[0],
        b=names[1],
        comparisons=list(
            zip((variant for _, variant, _ in shared), verdicts.corrected(made), strict=True)
        ),
        only=only,
        apart=[
            (f"{name}: {what}", why)
            for name, r in zip(names, (first, second), strict=True)
            for what, why in r.apart
        ],
    )


def _groups(records: Records) -> dict[Group, dict[int, Record]]:
    groups: dict[Group, dict[int, Record]] = {}
    for run in records.runs:
        groups.setdefault((run.workload, run.variant, run.scale), {})[run.seed] = run
    return groups


def _side(records: Records, runs: Mapping[int, Record], label: str) -> Side:
    one = next(iter(runs.values()))
    problem = proof.parity_problem(records, one.workload, one.variant)
    return Side(
        label=label,
        settings=records.study.variant(one.variant),
        runs=runs,
        facts={seed: facts_of(run) for seed, run in runs.items() if run.summary},
        problems=[f"in study {records.study.name}, {problem}"] if problem else [],
        curves=proof.curves(records, one.workload),
    )


def lines(comparison: StudyComparison) -> list[str]:
    """Return what the terminal shows."""
    result = [f"{comparison.b} against {comparison.a}"]
    for _, c in comparison.comparisons:
        result.append(f"{c.workload} at {c.scale}: {sentences.sentence(c)}")
        result.append(f"  {sentences.quality_sentence(c)}")
        result += [f"  flagged: {verdicts.difference_text(d)}" for d in c.flags]
        result += [f"  left out: seed {seed}: {why}" for seed, why in c.left_out]
        result += [f"  left out of step time: seed {seed}: {why}" for seed, why in c.untimed]
    told = {
        f"  {d.fact}: {' / '.join(d.baseline)} -> {' / '.join(d.candidate)}"
        for _, c in comparison.comparisons
        for d in c.differences
        if d.level == contract.DECLARED
    }
    if told:
        result += ["what differs between the studies:", *sorted(told)]
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
