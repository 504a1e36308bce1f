"""Verdicts in words: one sentence each, with as many digits as the interval deserves."""

import math

import numpy as np

from lockstep.report import statistics
from lockstep.report.statistics import Ratio
from lockstep.report.verdicts import (
    ALPHA,
    DIFFERENT,
    EQUIVALENT,
    NO_DIFFERENCE,
    NO_PAIR,
    NOT_COMPARABLE,
    ONE_PAIR,
    UNDECIDED,
    Comparison,
)


def sentence(c: Comparison) -> str:
    """Return the verdict on time, in one sentence, and whether contention was watched."""
    said = _sentence(c)
    if c.unwatched and c.step_time and c.kind != NOT_COMPARABLE:
        said += f" Contention was not watched: {c.unwatched}."
    return said


def _sentence(c: Comparison) -> str:
    if c.kind == NOT_COMPARABLE:
        return (
            f"{c.candidate} and {c.baseline} are not comparable"
            + (" in time" if not c.problems else "")
            + f": {[*c.problems, *c.timing_problems][0]}."
        )
    if c.step_time is None:
        lost = next(iter([*c.left_out, *c.untimed]), None)
        why = f"seed {lost[0]}: {lost[1]}" if lost else "there is no seed"
        what = "runs with a step time" if c.seeds else "finished runs"
        return f"{c.candidate} and {c.baseline} have no pair of {what} to compare ({why})."
    times = f"{ratio_text(c.step_time)} times the step time of {c.baseline}"
    if c.kind == ONE_PAIR:
        return (
            f"{c.candidate} took {times} in the only pair of runs{_declared(c)}; "
            "one pair gives no interval and no verdict."
        )
    if c.step_time.low is None:
        return (
            f"No statement on step time: {c.candidate} took {times} in each of {c.step_time.n} "
            f"pairs{_declared(c)}, and without any spread nothing can be tested."
        )
    interval = f"(95% interval {interval_text(c.step_time)}, n = {c.step_time.n} pairs)"
    if c.kind == NO_DIFFERENCE:
        return (
            f"No detectable difference{_declared(c)}: {c.candidate} takes {times} "
            f"{interval}{_after_holm(c)}."
        )
    return f"{c.candidate} is {c.kind}{_declared(c)}: it takes {times} {interval}."


def _declared(c: Comparison) -> str:
    """Return how the two are set differently beyond framework and mode."""
    baseline, candidate = c.declared
    return (f", with {candidate}" if candidate else "") + (
        f", where {c.baseline} has {baseline}" if baseline else ""
    )


def _after_holm(c: Comparison) -> str:
    """Explain an interval that excludes 1 where the correction still sees no difference."""
    if c.step_time is None or c.step_time.p is None or c.step_time.p >= ALPHA:
        return ""
    return f", which is not enough{_holm(c.family)}"


def _holm(family: int) -> str:
    return f" after Holm's correction over {family} comparisons"


def _quality_after_holm(c: Comparison) -> str:
    """Explain an interval that decides where, after the correction, the test does not."""
    test, said = c.quality, []
    if test is not None and test.p is not None and test.p < ALPHA:
        said.append("lie within the margin")
    if (
        c.quality_kind != DIFFERENT
        and test is not None
        and test.p_different is not None
        and test.p_different < ALPHA
    ):
        said.append("be different from 0")
    if not said:
        return ""
    return f", which is not enough to {' or to '.join(said)}{_holm(c.quality_family)}"


def ratio_text(r: Ratio) -> str:
    """Return a ratio, with as many digits as its interval deserves."""
    return f"{r.value:.{_decimals(r)}f}"


def interval_text(r: Ratio) -> str:
    """Return a ratio's interval, with as many digits as it deserves."""
    if r.low is None or r.high is None:
        return "none"
    decimals = _decimals(r)
    return f"{r.low:.{decimals}f} to {r.high:.{decimals}f}"


MOST_DECIMALS = 9


def _decimals(r: Ratio) -> int:
    """Return the decimals that show how wide an interval is, and on which side of 1 it lies."""
    wide = r.low is None or r.high is None or (r.high - r.low) / r.value >= 0.05
    size = math.floor(math.log10(r.value))
    decimals = max(0, (2 if wide else 3) - (size if size > 0 else min(0, size + 1)))
    if r.low is None or r.high is None or r.low == r.high:
        return decimals
    while decimals < MOST_DECIMALS and _hides(r.low, r.value, r.high, decimals):
        decimals += 1
    return decimals


def _hides(low: float, value: float, high: float, decimals: int) -> bool:
    """Whether so few decimals hide that an interval has a width, or that it excludes 1."""
    a, middle, b = (round(x, decimals) for x in (low, value, high))
    return a == b or low > 1 >= a or high < 1 <= b or middle == 1 != value


def percent(share: float) -> str:
    """Return a share in percent with two significant digits."""
    return f"{float(f'{100 * share:.2g}'):g}%"


def metric_decimals(margin: float) -> int:
    """Return how many decimals of a metric a margin deserves: its own, and one more."""
    return max(4, 1 - math.floor(math.log10(margin))) if margin > 0 else 4


def quality_sentence(c: Comparison) -> str:
    """Return the verdict on the final metric, in one sentence."""
    name, test = c.metric.replace("_", " "), c.quality
    if c.quality_kind == NOT_COMPARABLE:
        return f"No statement on {name}: the runs are not comparable."
    if test is None:
        return f"No statement on {name}: there is no pair of finished runs."
    if c.quality_kind == EQUIVALENT and test.difference == 0 and test.sd == 0:
        return (
            f"Final {name} is equivalent within ±{test.margin:g}: the same in all {test.n} pairs."
        )
    decimals = metric_decimals(test.margin)
    differs = f"{test.difference:+.{decimals}f}"
    if c.quality_kind == ONE_PAIR:
        return f"Final {name} differs by {differs} in the only pair; that decides nothing."
    if test.sd == 0 and test.resolution is None and c.quality_kind == UNDECIDED:
        return (
            f"No statement on {name}: it differs by {differs} in each of {test.n} pairs, and "
            "without any spread nothing can be tested."
        )
    ends = f"{test.low:+.{decimals}f} to {test.high:+.{decimals}f}"
    interval = f"{differs} (90% interval {ends}, n = {test.n} pairs)"
    if c.quality_kind == EQUIVALENT:
        return f"Final {name} is equivalent within ±{test.margin:g}: {interval}."
    unproven = f"Final {name} is not shown to be equivalent within ±{test.margin:g}"
    if c.quality_kind == DIFFERENT:
        return f"{unproven} and differs: {interval}{_quality_after_holm(c)}."
    return f"{unproven}: {interval}{_quality_after_holm(c)}."


def more_sentence(c: Comparison) -> str | None:
    """Return what would have to change to know more; None where nothing sensible can be said."""
    if c.kind in (NOT_COMPARABLE, NO_PAIR):
        return None
    if c.kind == ONE_PAIR:
        return "At least two seeds give an interval; five or more give a useful one."
    if c.step_time is None or not c.step_time.log_sd or c.step_time.low is None:
        return None
    needed = c.seeds_needed
    if needed is not None and needed <= c.step_time.n:
        return f"The interval is within ±{percent(c.precision)} already."
    for precision in sorted({c.precision, *COARSER}):
        within = statistics.seeds_needed(c.step_time.log_sd, precision)
        if precision >= c.precision and within is not None and c.step_time.n < within <= FEASIBLE:
            return f"About {within} seeds would narrow the interval to ±{percent(precision)}."
    spread = np.expm1(c.step_time.log_sd)
    return f"Pairs differ by ±{percent(spread)}: a quieter machine would tell more than more seeds."


COARSER = (0.05, 0.10, 0.25)
"""Precisions that are named where the one of the config needs more than FEASIBLE seeds."""

FEASIBLE = 100
