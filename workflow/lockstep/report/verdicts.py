"""The answer: for every two variants of a workload at a scale, which is faster and is it fair.

A verdict rests on step time in the steady state, paired by seed. It is *faster* or *slower* only
if the difference stays detectable after Holm's correction over all comparisons of the report, and
there is none where parity or the contracts say that the runs are not comparable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lockstep.records import parity_verdict
from lockstep.records.load import Record, Records
from lockstep.records.record_validation import FAILED, FINISHED
from lockstep.records.run_facts import Facts, facts_of, other_threads, undeclared_precision
from lockstep.report import comparability, firststep, statistics
from lockstep.report.comparability import BLOCKS, FLAGGED, PREPARATION, TIMING, Difference
from lockstep.report.firststep import FirstStep
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
    """One side of a comparison: a variant's runs of one workload and scale."""

    workload: str
    scale: str
    label: str  # how sentences call it
    settings: Mapping[str, Any]  # of the variant, as the config has them
    runs: Mapping[int, Record]  # by seed, whatever became of them
    facts: Mapping[int, Facts]  # of the runs that have any, by seed
    problems: Sequence[str] = ()  # why its runs must not be compared at all
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)  # of `parity_verdict.curves`

    @property
    def shared(self) -> bool:
        """Whether batches and random numbers are the shared ones: its first losses are fixed."""
        return firststep.fixed(self.settings)

    def unusable(self, seed: int) -> str | None:
        """Return why its run of a seed cannot be paired, None if it can."""
        run = self.runs.get(seed)
        if run is None:
            return f"{self.label} has no such run"
        if run.status != FINISHED:
            return f"{self.label} {run.status}: {run.reason}"
        why = run.begun_elsewhere
        if self.shared and run.first_losses is None:
            why = f"the losses of its first steps are not known (steps.npz: {run.steps_problem})"
        return f"{self.label}: {why}" if why else None

    def untimed(self, seed: int) -> str | None:
        """Return why its run of a seed says nothing of step time, None if it does."""
        run = self.runs[seed]
        absent = run.summary["steady"].get("absent") or "no steady state"
        why = run.disturbed or (None if run.step_time else absent)
        return f"{self.label}: {why}" if why else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two sides, and the conclusions about them."""

    workload: str
    scale: str
    baseline: str
    candidate: str
    seeds: Sequence[int]  # that were paired
    left_out: Sequence[tuple[int, str]]  # seed and reason of those that were not
    untimed: Sequence[tuple[int, str]]  # seed and reason of paired ones that say nothing of time
    first_step: FirstStep | None  # how far first losses differ; None if they are not compared
    step_time: Ratio | None  # ratio of median step times, candidate over baseline
    to_target: Ratio | None  # of training times; None if a run failed or did not meet it
    whole_run: Ratio | None  # of times from process start to end, of runs that did not start cold
    metric: str  # name of the final metric
    quality: Equivalence | None  # its equivalence test
    differences: Sequence[Difference]  # between the contracts
    problems: Sequence[str]  # what forbids any verdict, and one on time
    timing_problems: Sequence[str]
    declared: Sequence[str]  # how baseline and candidate are set where the other is not, in words
    unwatched: str | None  # why nobody can say whether runs shared their cores; None if watched
    precision: float  # for `seeds_needed`
    # p values of step time, of equivalence and of difference of the metric, after Holm's correction
    p_holm: float | None = None
    quality_p_holm: float | None = None
    different_p_holm: float | None = None
    family: int = 1  # how many tests of time and of the metric share the error rate
    quality_family: int = 1

    @property
    def kind(self) -> str:
        """The conclusion about time."""
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
        """The conclusion about the final metric."""
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


def side(records: Records, study: str | None, workload: str, variant: str, scale: str) -> Side:
    """Return the side that a variant's runs of a workload and scale are.

    Args:
        study: what sentences call its study, where two are compared.
    """
    runs = records.by_side[workload, variant, scale]
    problems = (
        parity_verdict.parity_problem(records, workload, variant),
        parity_verdict.other_device(records, workload, variant, scale),
        firststep.unlike_batches(records, workload, variant),
    )
    return Side(
        workload=workload,
        scale=scale,
        label=f"{variant} of {study}" if study else variant,
        settings=records.study.variant(variant),
        runs=runs,
        facts={seed: facts_of(run) for seed, run in runs.items() if run.summary},
        problems=[
            f"in {study}, {problem}" if study else problem for problem in problems if problem
        ],
        curves=parity_verdict.curves(records, workload),
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with Holm's correction over those that may have a verdict."""
    timed = [None if c.problems or c.timing_problems else c.step_time for c in comparisons]
    tests = [None if c.problems else c.quality for c in comparisons]
    times = [ratio.p if ratio else None for ratio in timed]
    same = [test.p if test else None for test in tests]
    different = [test.p_different if test else None for test in tests]
    family, quality_family = (sum(p is not None for p in some) for some in (times, same))
    families = {"family": family, "quality_family": quality_family}
    return [
        replace(c, p_holm=p, quality_p_holm=q, different_p_holm=d, **families)
        for c, p, q, d in zip(comparisons, *map(statistics.holm, (times, same, different)))
    ]


# One comparison -------------------------------------------------------------------------------


def compare(
    baseline: Side, candidate: Side, options: Mapping[str, Any], *, between_studies: bool = False
) -> Comparison:
    """Compare two sides of a workload and scale, paired by seed.

    Args:
        options: the section `report` of the study's config.
    """
    sides = (baseline, candidate)
    every_seed = sorted(baseline.runs.keys() | candidate.runs.keys())
    missing = {s: "; ".join(filter(None, (side.unusable(s) for side in sides))) for s in every_seed}
    seeds = [seed for seed, why in missing.items() if not why]
    runs = {seed: (baseline.runs[seed], candidate.runs[seed]) for seed in seeds}
    facts = {seed: (baseline.facts[seed], candidate.facts[seed]) for seed in seeds}
    elsewhere, confounded = ({}, []) if between_studies else comparability.confounded(facts)
    other = comparability.diff(list(facts.values()), between_studies=between_studies)
    differences = [*confounded, *other]
    problems, first = [*baseline.problems, *candidate.problems], None
    if seeds and all(side.shared for side in sides):
        precisions = [side.settings["precision"] for side in sides]
        first = firststep.compare(runs, precisions, candidate.curves)
        differ = firststep.problem(first, (baseline.label, candidate.label))
        problems += [f"parity is not proven at scale {baseline.scale}: {differ}"] if differ else []
    grave = [d for d in differences if d.level == BLOCKS]
    problems += [comparability.difference_text(d) for d in grave if d.touches != TIMING]
    timing_problems = [comparability.difference_text(d) for d in grave if d.touches == TIMING]
    for side in sides:
        computed = {undeclared_precision(side.facts[seed]) for seed in seeds}
        threads = {other_threads(side.runs[seed]) for seed in seeds}
        for told, found in ((problems, computed), (timing_problems, threads)):
            told += [f"{side.label} {what}" for what in sorted(filter(None, found))]
    why_untimed = {s: baseline.untimed(s) or candidate.untimed(s) for s in seeds}
    reasons = {s: elsewhere.get(s) or why for s, why in why_untimed.items()}
    untimed = {seed: why for seed, why in reasons.items() if why}
    disturbed = [s for s in seeds if any(run.disturbed for run in runs[s])]
    if disturbed and len(seeds) - len(untimed) < comparability.LEAST_PAIRS:
        count, seed = f"{len(disturbed)} of {len(seeds)} pairs", disturbed[0]
        timing_problems.append(f"in {count} a run was disturbed (seed {seed}, {why_untimed[seed]})")
    near = [runs[s] for s in seeds if s not in elsewhere and s not in disturbed]
    warm = [pair for pair in near if all(run.summary["cache"] != "cold" for run in pair)]
    lost = any(run.status == FAILED for side in sides for run in side.runs.values())
    every = [run for pair in runs.values() for run in pair]
    missed = any(run.seconds_to_target is None for run in every)
    declared = (
        parity_verdict.listed(comparability.phrases(one.settings, other.settings))
        for one, other in (sides, sides[::-1])
    )
    return Comparison(
        workload=baseline.workload,
        scale=baseline.scale,
        baseline=baseline.label,
        candidate=candidate.label,
        seeds=seeds,
        left_out=[(seed, why) for seed, why in missing.items() if why],
        untimed=list(untimed.items()),
        first_step=first,
        step_time=_ratio([runs[s] for s in seeds if s not in untimed], "step_time"),
        to_target=None if lost or missed else _ratio(near, "seconds_to_target"),
        whole_run=_ratio(warm, "whole_seconds"),
        metric=every[0].metric if every else "the final metric",
        quality=_quality(list(runs.values()), options["margin"]),
        differences=differences,
        problems=list(dict.fromkeys(problems)),
        timing_problems=timing_problems,
        declared=tuple(declared),
        unwatched=next((run.unwatched for run in every if run.unwatched), None),
        precision=options["precision"],
    )


def _ratio(pairs: Sequence[tuple[Record, Record]], time: str) -> Ratio | None:
    """Return the ratio of a time over the pairs; None where a pair does not have it.

    Those who never met a target must not be left out for being slow.
    """
    values = np.array([[getattr(run, time) or np.nan for run in pair] for pair in pairs], float)
    return statistics.ratio(*values.T) if len(values) and np.isfinite(values).all() else None


def _quality(pairs: Sequence[tuple[Record, Record]], margin: float) -> Equivalence | None:
    """Test the final metric; of one that is no share, the margin is a share of the baseline's mean.

    Only a share moves in steps of one test example.
    """
    runs = [run for pair in pairs for run in pair]
    if not runs or any(run.metric not in run.summary["metrics"] for run in runs):
        return None
    values = np.array([[run.summary["metrics"][run.metric] for run in pair] for pair in pairs])
    a, b = values.T
    if not runs[0].metric_is_share:
        found = statistics.equivalence(a, b, margin * abs(float(a.mean())))
        return replace(found, relative=margin)
    seen = [run.epochs.get(run.metric, np.empty(0)) for run in runs]
    step = statistics.resolution(np.concatenate([values.ravel(), *seen]))
    return statistics.equivalence(a, b, margin, step)
