"""Every sentence on a comparison, as templates: the verdicts, with the digits that they deserve."""

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

TIME = {
    NOT_COMPARABLE: "{b} and {a} are not comparable{in_time}: {why}.",
    NO_PAIR: "{b} and {a} have no pair of {what} to compare ({why}).",
    ONE_PAIR: "{b} took {times} in the only pair of runs{declared}; one pair gives no interval and "
    "no verdict.",
    "no spread": "No statement on step time: {b} took {times} in each of {n} pairs{declared}, and "
    "without any spread nothing can be tested.",
    NO_DIFFERENCE: "No detectable difference{declared}: {b} takes {times} {interval}{holm}.",
}
VERDICT = "{b} is {kind}{declared}: it takes {times} {interval}."
UNWATCHED = " Contention was not watched: {why}."

METRIC = {
    NOT_COMPARABLE: "No statement on {name}: the runs are not comparable.",
    NO_PAIR: "No statement on {name}: there is no pair of finished runs.",
    ONE_PAIR: "Final {name} differs by {differs} in the only pair; that decides nothing.",
    "same": "Final {name} is equivalent within ±{margin:g}: the same in all {n} pairs.",
    "no spread": "No statement on {name}: it differs by {differs} in each of {n} pairs, and "
    "without any spread nothing can be tested.",
    EQUIVALENT: "Final {name} is equivalent within ±{margin:g}: {interval}.",
    DIFFERENT: "Final {name} is not shown to be equivalent within ±{margin:g} and differs: "
    "{interval}{holm}.",
    UNDECIDED: "Final {name} is not shown to be equivalent within ±{margin:g}: {interval}{holm}.",
}

COARSER = (0.05, 0.10, 0.25)
"""Precisions that are named where the one of the config needs more than FEASIBLE seeds."""

FEASIBLE = 100


def sentence(c: Comparison) -> str:
    """Return the verdict on time, in one sentence, and whether contention was watched."""
    values = {"a": c.baseline, "b": c.candidate, "kind": c.kind, "declared": _declared(c)}
    if c.kind == NOT_COMPARABLE:
        why = [*c.problems, *c.timing_problems][0]
        return TIME[c.kind].format(**values, why=why, in_time="" if c.problems else " in time")
    if c.step_time is None:
        lost = next(iter([*c.left_out, *c.untimed]), None)
        why = f"seed {lost[0]}: {lost[1]}" if lost else "there is no seed"
        what = "runs with a step time" if c.seeds else "finished runs"
        return TIME[NO_PAIR].format(**values, what=what, why=why)
    values["times"] = f"{ratio_text(c.step_time)} times the step time of {c.baseline}"
    template = TIME.get(c.kind, VERDICT)
    if c.kind != ONE_PAIR and c.step_time.low is None:
        template = TIME["no spread"]
    n, ends = c.step_time.n, interval_text(c.step_time)
    values["interval"] = f"(95% interval {ends}, n = {n} pairs)"
    # An interval may exclude 1 where the correction still sees no difference.
    taken_back = c.step_time.p is not None and c.step_time.p < ALPHA
    values["holm"] = f", which is not enough{_holm(c.family)}" if taken_back else ""
    text = template.format(**values, n=n)
    return text + (UNWATCHED.format(why=c.unwatched) if c.unwatched else "")


def _declared(c: Comparison) -> str:
    """Return how the two are set differently beyond framework and mode."""
    baseline, candidate = c.declared
    there = f", where {c.baseline} has {baseline}" if baseline else ""
    return (f", with {candidate}" if candidate else "") + there


def _holm(family: int) -> str:
    return f" after Holm's correction over {family} comparisons"


def quality_sentence(c: Comparison) -> str:
    """Return the verdict on the final metric, in one sentence."""
    name, test, kind = c.metric.replace("_", " "), c.quality, c.quality_kind
    if test is None or kind == NOT_COMPARABLE:
        return METRIC[NOT_COMPARABLE if kind == NOT_COMPARABLE else NO_PAIR].format(name=name)
    decimals = metric_decimals(test.margin)
    differs, interval = f"{test.difference:+.{decimals}f}", ""
    if test.low is not None and test.high is not None:
        ends = f"{test.low:+.{decimals}f} to {test.high:+.{decimals}f}"
        interval = f"{differs} (90% interval {ends}, n = {test.n} pairs)"
    if kind == EQUIVALENT and test.difference == 0 and test.sd == 0:
        kind = "same"
    elif kind == UNDECIDED and test.sd == 0 and test.resolution is None:
        kind = "no spread"
    return METRIC[kind].format(
        name=name,
        n=test.n,
        margin=test.margin,
        differs=differs,
        interval=interval,
        holm=_quality_holm(c),
    )


def _quality_holm(c: Comparison) -> str:
    """Explain an interval that decides where, after the correction, the test does not."""
    test, taken = c.quality, []
    if test is not None and test.p is not None and test.p < ALPHA:
        taken.append("lie within the margin")
    different = test.p_different if test is not None else None
    if c.quality_kind != DIFFERENT and different is not None and different < ALPHA:
        taken.append("be different from 0")
    words = f", which is not enough to {' or to '.join(taken)}{_holm(c.quality_family)}"
    return words if taken else ""


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
    return f"Pairs differ by ±{percent(spread)}: a quieter machine would help more than more seeds."


# Numbers --------------------------------------------------------------------------------------

MOST_DECIMALS = 9


def ratio_text(r: Ratio) -> str:
    """Return a ratio, with as many digits as its interval deserves."""
    return f"{r.value:.{_decimals(r)}f}"


def interval_text(r: Ratio) -> str:
    """Return a ratio's interval, with as many digits as it deserves."""
    if r.low is None or r.high is None:
        return "none"
    decimals = _decimals(r)
    return f"{r.low:.{decimals}f} to {r.high:.{decimals}f}"


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
