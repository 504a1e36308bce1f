"""Verdicts in words: one sentence each, with as many digits as the interval deserves."""

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
    Comparison,
)


def sentence(c: Comparison) -> str:
    """Return the verdict on time, in one sentence."""
    if c.kind == NOT_COMPARABLE:
        return (
            f"{c.candidate} and {c.baseline} are not comparable"
            + (" in time" if not c.problems else "")
            + f": {[*c.problems, *c.timing_problems][0]}."
        )
    if c.step_time is None:
        why = f"seed {c.left_out[0][0]}: {c.left_out[0][1]}" if c.left_out else "no steady state"
        return f"{c.candidate} and {c.baseline} have no pair of finished runs to compare ({why})."
    times = f"{c.step_time.value:.{_digits(c.step_time)}f} times the step time of {c.baseline}"
    if c.kind == ONE_PAIR:
        return (
            f"{c.candidate} took {times} in the only pair of runs; "
            "one pair gives no interval and no verdict."
        )
    interval = f"(95% interval {interval_text(c.step_time)}, n = {c.step_time.n} pairs)"
    if c.kind == NO_DIFFERENCE:
        return f"No detectable difference: {c.candidate} takes {times} {interval}{_after_holm(c)}."
    return f"{c.candidate} is {c.kind}: it takes {times} {interval}."


def _after_holm(c: Comparison) -> str:
    """Explain an interval that excludes 1 where the correction still sees no difference."""
    if c.step_time is None or c.step_time.p is None or c.step_time.p >= ALPHA:
        return ""
    return f", which is not enough after Holm's correction over {c.family} comparisons"


def interval_text(r: Ratio) -> str:
    """Return a ratio's interval, with as many digits as it deserves."""
    if r.low is None or r.high is None:
        return "none from one pair"
    digits = _digits(r)
    return f"{r.low:.{digits}f} to {r.high:.{digits}f}"


def _digits(r: Ratio) -> int:
    if r.low is None or r.high is None:
        return 2
    return 3 if (r.high - r.low) / r.value < 0.05 else 2


def quality_sentence(c: Comparison) -> str:
    """Return the verdict on the final metric, in one sentence."""
    name, test = c.metric.replace("_", " "), c.quality
    if c.quality_kind == NOT_COMPARABLE:
        return f"No statement on {name}: the runs are not comparable."
    if test is None:
        return f"No statement on {name}: there is no pair of finished runs."
    if test.n > 1 and test.difference == 0 and test.sd == 0:
        return (
            f"Final {name} is equivalent within ±{test.margin:g}: the same in all {test.n} pairs."
        )
    differs = f"{test.difference:+.4f}"
    if c.quality_kind == ONE_PAIR:
        return f"Final {name} differs by {differs} in the only pair; that decides nothing."
    interval = f"{differs} (90% interval {test.low:+.4f} to {test.high:+.4f}, n = {test.n} pairs)"
    if c.quality_kind == EQUIVALENT:
        return f"Final {name} is equivalent within ±{test.margin:g}: {interval}."
    unproven = f"Final {name} is not shown to be equivalent within ±{test.margin:g}"
    if c.quality_kind == DIFFERENT:
        return f"{unproven} and differs: {interval}."
    return f"{unproven}: {interval}."


def more_sentence(c: Comparison) -> str | None:
    """Return what would have to change to know more; None where nothing sensible can be said."""
    if c.kind in (NOT_COMPARABLE, NO_PAIR):
        return None
    if c.kind == ONE_PAIR:
        return "At least two seeds give an interval; five or more give a useful one."
    if c.step_time is None or c.step_time.log_sd is None:
        return None
    needed = c.seeds_needed
    if needed is not None and needed <= c.step_time.n:
        return f"The interval is within ±{c.precision:.0%} already."
    for precision in sorted({c.precision, *COARSER}):
        within = statistics.seeds_needed(c.step_time.log_sd, precision)
        if precision >= c.precision and within is not None and c.step_time.n < within <= FEASIBLE:
            return f"About {within} seeds would narrow the interval to ±{precision:.0%}."
    spread = np.expm1(c.step_time.log_sd)
    return f"Pairs differ by ±{spread:.0%}: a quieter machine would tell more than more seeds."


COARSER = (0.05, 0.10, 0.25)
"""Precisions that are named where the one of the config needs more than FEASIBLE seeds."""

FEASIBLE = 100
