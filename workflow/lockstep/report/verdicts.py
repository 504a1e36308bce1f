"""The answer: for every two variants of a workload at a scale, which is faster and is it fair.

A verdict rests on step time in the steady state, paired by seed. It is *faster* or *slower* only
if the difference stays detectable after Holm's correction over all comparisons of the report, and
there is none where parity or the contracts say that the runs are not comparable.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lockstep.report import batches, contract, firststep, proof, settings, statistics
from lockstep.report.contract import BLOCKS, FLAGGED, PREPARATION, TIMING, Difference
from lockstep.report.facts import Facts, facts_of, undeclared_precision
from lockstep.report.firststep import FirstStep
from lockstep.report.load import FAILED, FINISHED, Key, Record, Records
from lockstep.report.statistics import Equivalence, Ratio

ALPHA = 0.05

FASTER = "faster"
SLOWER = "slower"
NO_DIFFERENCE = "no detectable difference"
ONE_PAIR = "one pair"
NO_PAIR = "no pair"
NOT_COMPARABLE = "not comparable"

EQUIVALENT = "equivalent"
DIFFERENT = "different"
UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison: a variant's runs of one workload and scale.

    Attributes:
        label: how sentences call it.
        settings: of the variant, as the config has them.
        runs: by seed, whatever became of them.
        facts: of the runs that have any, by seed.
        problems: why its runs must not be compared at all.
        curves: how far the parity stage lets each step's loss differ (`proof.curves`).
    """

    label: str
    settings: Mapping[str, Any]
    runs: Mapping[int, Record]
    facts: Mapping[int, Facts]
    problems: Sequence[str] = ()
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two sides, and what may be said of them.

    Attributes:
        seeds: that were paired.
        left_out: seed and reason of those that were not.
        untimed: seed and reason of paired ones that say nothing of time.
        first_step: how far the first losses of the pairs are apart; None if they are not compared.
        step_time: ratio of median step times, candidate over baseline.
        p_holm: its p value after Holm's correction.
        to_target: ratio of training times to the target, where all pairs met it and no run failed.
        whole_run: ratio of the times of whole runs, from process start, that did not start cold.
        metric: name of the final metric.
        quality: its equivalence test.
        quality_p_holm: its p value after Holm's correction.
        different_p_holm: the same of the test that the metrics differ.
        differences: between the contracts.
        problems: what forbids any verdict.
        timing_problems: what forbids a verdict on time.
        declared: how baseline and candidate are set where the other is not, in words.
        unwatched: why nobody can say whether runs had to share their cores; None if it was watched.
        precision: for `seeds_needed`.
        family, quality_family: how many tests of time and of the metric share the error rate.
    """

    workload: str
    scale: str
    baseline: str
    candidate: str
    seeds: Sequence[int]
    left_out: Sequence[tuple[int, str]]
    untimed: Sequence[tuple[int, str]]
    first_step: FirstStep | None
    step_time: Ratio | None
    to_target: Ratio | None
    whole_run: Ratio | None
    metric: str
    quality: Equivalence | None
    differences: Sequence[Difference]
    problems: Sequence[str]
    timing_problems: Sequence[str]
    declared: tuple[str, str]
    unwatched: str | None
    precision: float
    p_holm: float | None = None
    quality_p_holm: float | None = None
    different_p_holm: float | None = None
    family: int = 1
    quality_family: int = 1

    @property
    def kind(self) -> str:
        """What may be said about time."""
        if self.problems or self.timing_problems:
            return NOT_COMPARABLE
        if self.step_time is None:
            return NO_PAIR
        if self.p_holm is None:
            return ONE_PAIR
        if self.p_holm >= ALPHA:
            return NO_DIFFERENCE
        return FASTER if self.step_time.value < 1 else SLOWER

    @property
    def quality_kind(self) -> str:
        """What may be said about the final metric."""
        if self.problems:
            return NOT_COMPARABLE
        if self.quality is None:
            return NO_PAIR
        if self.quality_p_holm is None:
            return ONE_PAIR
        if self.quality_p_holm < ALPHA:
            return EQUIVALENT
        if self.different_p_holm is not None and self.different_p_holm < ALPHA:
            return DIFFERENT
        return UNDECIDED

    @property
    def flags(self) -> list[Difference]:
        """Undeclared differences that do not forbid the verdict but stand beside it."""
        return [d for d in self.differences if d.level == FLAGGED and d.touches != PREPARATION]

    @property
    def seeds_needed(self) -> int | None:
        """Pairs for an interval of ± `precision`, at the spread that was measured."""
        if self.step_time is None or self.step_time.log_sd is None:
            return None
        return statistics.seeds_needed(self.step_time.log_sd, self.precision)


# Within a study -------------------------------------------------------------------------------


def compare_all(records: Records, margin: float, precision: float) -> list[Comparison]:
    """Return the comparisons of a study: every two variants of each workload and scale.

    The variant that stands first in the config is the baseline.
    """
    by_key = {run.key: run for run in records.runs}
    known = {run.key: facts_of(run) for run in records.runs if run.summary}
    config = records.study.config
    unlike = batches.problems(records)
    result = []
    for workload, scale in itertools.product(config["workloads"], config["scales"]):
        sides = [
            _side(records, by_key, known, workload, variant, scale, unlike.get((workload, variant)))
            for variant in config["variants"]
        ]
        result += [
            compare(workload, scale, a, b, margin=margin, precision=precision)
            for a, b in itertools.combinations(sides, 2)
        ]
    return corrected(result)


def _side(
    records: Records,
    by_key: Mapping[Key, Record],
    known: Mapping[Key, Facts],
    workload: str,
    variant: str,
    scale: str,
    unlike: str | None,
) -> Side:
    keys = {seed: (workload, variant, scale, seed) for seed in records.study.config["seeds"]}
    problem = proof.parity_problem(records, workload, variant)
    return Side(
        label=variant,
        settings=records.study.variant(variant),
        runs={seed: by_key[key] for seed, key in keys.items()},
        facts={seed: known[key] for seed, key in keys.items() if key in known},
        problems=[why for why in (problem, unlike) if why],
        curves=proof.curves(records, workload),
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with Holm's correction over those that may have a verdict."""
    times = [
        c.step_time.p if c.step_time and not c.problems and not c.timing_problems else None
        for c in comparisons
    ]
    tests = [c.quality if c.quality and not c.problems else None for c in comparisons]
    same = statistics.holm([test.p if test else None for test in tests])
    apart = statistics.holm([test.p_different if test else None for test in tests])
    family, quality_family = (sum(p is not None for p in some) for some in (times, same))
    return [
        replace(
            c,
            p_holm=p,
            quality_p_holm=q,
            different_p_holm=d,
            family=family,
            quality_family=quality_family,
        )
        for c, p, q, d in zip(comparisons, statistics.holm(times), same, apart, strict=True)
    ]


# One comparison -------------------------------------------------------------------------------


def compare(
    workload: str,
    scale: str,
    baseline: Side,
    candidate: Side,
    *,
    margin: float,
    precision: float,
    between_studies: bool = False,
) -> Comparison:
    """Compare two sides, paired by seed."""
    seeds, left_out = [], []
    for seed in sorted(baseline.runs.keys() | candidate.runs.keys()):
        lacking = [_lacking(side, seed) for side in (baseline, candidate)]
        if any(lacking):
            left_out.append((seed, "; ".join(filter(None, lacking))))
        else:
            seeds.append(seed)
    a, b = ([side.runs[seed] for seed in seeds] for side in (baseline, candidate))
    facts = {seed: (baseline.facts[seed], candidate.facts[seed]) for seed in seeds}
    pairs = list(facts.values())
    differences = contract.diff(pairs, between_studies=between_studies) if pairs else []
    elsewhere, forbidden = ({}, None) if between_studies else contract.confounded(facts)
    differences = [*([forbidden] if forbidden else []), *differences]
    first = firststep.compare(baseline.runs, candidate.runs, facts, candidate.curves)
    apart = firststep.problem(first, (baseline.label, candidate.label))
    unproven = [f"parity is not proven at scale {scale}: {apart}"] if apart else []
    problems = [*baseline.problems, *candidate.problems, *unproven]
    problems += [
        difference_text(d) for d in differences if d.level == BLOCKS and d.touches != TIMING
    ]
    problems += _undeclared(baseline, seeds) + _undeclared(candidate, seeds)
    untimed = dict(elsewhere)
    for seed in seeds:
        if seed not in untimed and (why := _untimed(baseline, candidate, seed)):
            untimed[seed] = why
    sides = (baseline, candidate)
    disturbed = {s: why for s in seeds if (why := _disturbed(sides, s))}
    near = [seed for seed in seeds if seed not in elsewhere and seed not in disturbed]
    c, d = ([side.runs[seed] for seed in near] for side in sides)
    lost = any(run.status == FAILED for side in (baseline, candidate) for run in side.runs.values())
    timing = [difference_text(d) for d in differences if d.level == BLOCKS and d.touches == TIMING]
    if disturbed and len(seeds) - len(untimed) < contract.LEAST_PAIRS:
        seed, why = next(iter(disturbed.items()))
        timing.append(f"in {len(disturbed)} of {len(seeds)} pairs (seed {seed}) {why}")
    warmed = [s for s in near if all(side.runs[s].summary["cache"] != "cold" for side in sides)]
    warm = [[side.runs[seed] for seed in warmed] for side in sides]
    return Comparison(
        workload=workload,
        scale=scale,
        baseline=baseline.label,
        candidate=candidate.label,
        seeds=seeds,
        left_out=left_out,
        untimed=sorted(untimed.items()),
        first_step=first,
        step_time=_ratio(c, d, _step_time, some=True),
        to_target=None if lost else _ratio(c, d, _to_target),
        whole_run=_ratio(warm[0], warm[1], lambda run: _whole(run.summary["seconds"])),
        metric=_metric(a),
        quality=_quality(a, b, margin),
        differences=differences,
        problems=list(dict.fromkeys(problems)),
        timing_problems=timing,
        declared=(
            settings.listed(baseline.settings, candidate.settings),
            settings.listed(candidate.settings, baseline.settings),
        ),
        unwatched=next(filter(None, (run.unwatched for run in (*a, *b))), None),
        precision=precision,
    )


def _lacking(side: Side, seed: int) -> str | None:
    run = side.runs.get(seed)
    if run is None:
        return f"{side.label} has no such run"
    if run.status != FINISHED:
        return f"{side.label} {run.status}: {run.reason}"
    why = run.begun_elsewhere or firststep.unknown(run, side.facts[seed])
    return f"{side.label}: {why}" if why else None


def _untimed(baseline: Side, candidate: Side, seed: int) -> str | None:
    """Return why a pair has no ratio of step times, None if it has one."""
    if why := _disturbed((baseline, candidate), seed):
        return why
    for side in (baseline, candidate):
        run = side.runs[seed]
        if not _step_time(run):
            return f"{side.label}: {run.summary['steady'].get('absent') or 'no steady state'}"
    return None


def _disturbed(sides: Sequence[Side], seed: int) -> str | None:
    """Return which run of a pair had to share its cores, and why that forbids a time."""
    for side in sides:
        if why := side.runs[seed].disturbed:
            return f"{side.label}: {why}"
    return None


def _undeclared(side: Side, seeds: Sequence[int]) -> list[str]:
    found = {undeclared_precision(side.facts[seed]) for seed in seeds}
    return [f"{side.label} {what}" for what in sorted(filter(None, found))]


HASH = re.compile(r"[0-9a-f]{40,}")


def difference_text(difference: Difference) -> str:
    """Return what differed, in one clause."""
    seen = f"{' / '.join(difference.baseline)} against {' / '.join(difference.candidate)}"
    if any(HASH.fullmatch(v) for v in (*difference.baseline, *difference.candidate)):
        seen = "their hashes are not the same"
    where = (
        ""
        if difference.pairs == difference.of
        else f" in {difference.pairs} of {difference.of} pairs"
    )
    return f"{difference.label} ({difference.fact}) differs{where}: {seen}; {difference.why}"


def _step_time(run: Record) -> float | None:
    steady = run.windows.get("steady")
    return steady["step_seconds"]["median"] if steady else None


def _to_target(run: Record) -> float | None:
    return run.summary["target"].get("training_seconds")


def _whole(seconds: Mapping[str, float]) -> float:
    return sum(value for phase, value in seconds.items() if phase != "data_wait")


def _ratio(
    a: Sequence[Record], b: Sequence[Record], time: Any, *, some: bool = False
) -> Ratio | None:
    """Return the ratio of a time over the pairs; None where a pair does not have it.

    Args:
        some: leave such a pair out instead. A time to target must not: those who never met it
            would be left out for being slow.
    """
    values = np.array([[time(run) or np.nan for run in side] for side in (a, b)], dtype=float)
    known = np.isfinite(values).all(axis=0)
    if not known.any() or not (some or known.all()):
        return None
    return statistics.ratio(*values[:, known])


def _metric(runs: Sequence[Record]) -> str:
    return f"test_{runs[0].summary['target']['metric']}" if runs else "the final metric"


def _quality(a: Sequence[Record], b: Sequence[Record], margin: float) -> Equivalence | None:
    name = _metric(a)
    if not a or any(name not in run.summary["metrics"] for run in (*a, *b)):
        return None
    first, second = (np.array([run.summary["metrics"][name] for run in s]) for s in (a, b))
    seen = [run.epochs.get(name, np.empty(0)) for run in (*a, *b)]
    step = statistics.resolution(np.concatenate([first, second, *seen]))
    return statistics.equivalence(first, second, margin, step)
