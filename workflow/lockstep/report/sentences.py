"""Every sentence on a comparison, as templates: the verdicts, with the digits that they deserve."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lockstep.report import statistics
from lockstep.report.statistics import Ratio
from lockstep.report.verdicts import (
    ALPHA,
    DIFFERENT,
    EQUIVALENT,
    FASTER,
    NO_DIFFERENCE,
    NO_PAIR,
    NOT_COMPARABLE,
    ONE_PAIR,
    SLOWER,
    UNDECIDED,
    Comparison,
)

VERDICT = "{b} is {kind}{declared}: it takes {times} {interval}."
TIME = {
    FASTER: VERDICT,
    SLOWER: VERDICT,
    NOT_COMPARABLE: "{b} and {a} are not comparable{in_time}: {why}.",
    NO_PAIR: "{b} and {a} have no pair of {what} to compare ({why}).",
    ONE_PAIR: "{b} took {times} in the only pair of runs{declared}; one pair gives no interval and "
    "no verdict.",
    "no spread": "No statement on step time: {b} took {times} in each of {n} pairs{declared}, and "
    "without any spread nothing can be tested.",
    NO_DIFFERENCE: "No detectable difference{declared}: {b} takes {times} {interval}{holm}.",
}
UNWATCHED = " Contention was not watched: {why}."
HOLM = "; {what} without Holm's correction over {family} comparisons, but not with it"

METRIC = {
    NOT_COMPARABLE: "No statement on {name}: the runs are not comparable.",
    NO_PAIR: "No statement on {name}: there is no pair of finished runs.",
    ONE_PAIR: "Final {name} differs by {differs} in the only pair; that decides nothing.",
    "same": "Final {name} is equivalent within ±{margin}: the same in all {n} pairs.",
    "no spread": "No statement on {name}: it differs by {differs} in each of {n} pairs, and "
    "without any spread nothing can be tested.",
    EQUIVALENT: "Final {name} is equivalent within ±{margin}: {interval}.",
    DIFFERENT: "Final {name} is not shown to be equivalent within ±{margin} and differs: "
    "{interval}{holm}.",
    UNDECIDED: "Final {name} is not shown to be equivalent within ±{margin}: {interval}{holm}.",
}

FEASIBLE = 100  # seeds that are worth proposing
MOST_SEEDS = 3  # that the terminal names below a verdict


def sentence(c: Comparison) -> str:
    """Return the verdict on time, in one sentence, and whether contention was watched."""
    baseline, candidate = c.declared
    declared = f", with {candidate}" if candidate else ""
    declared += f", where {c.baseline} has {baseline}" if baseline else ""
    values = {"a": c.baseline, "b": c.candidate, "kind": c.kind, "declared": declared}
    if c.kind == NOT_COMPARABLE:
        why = [*c.problems, *c.timing_problems][0]
        return TIME[c.kind].format(**values, why=why, in_time="" if c.problems else " in time")
    if c.step_time is None:
        lost = next(iter([*c.left_out, *c.untimed]), None)
        why = f"seed {lost[0]}: {lost[1]}" if lost else "there is no seed"
        what = "runs with a step time" if c.seeds else "finished runs"
        return TIME[NO_PAIR].format(**values, what=what, why=why)
    ratio = c.step_time
    # An interval may exclude 1 where the correction still sees no difference.
    taken_back = ratio.p is not None and ratio.p < ALPHA
    text = TIME["no spread" if c.kind != ONE_PAIR and ratio.low is None else c.kind].format(
        **values,
        n=ratio.n,
        times=f"{ratio_text(ratio)} times the step time of {c.baseline}",
        interval=f"(95% interval {interval_text(ratio)}, n = {ratio.n} pairs)",
        holm=HOLM.format(what="it differs from 1", family=c.family) if taken_back else "",
    )
    return text + (UNWATCHED.format(why=c.unwatched) if c.unwatched else "")


def quality_sentence(c: Comparison) -> str:
    """Return the verdict on the final metric, in one sentence."""
    name, test, kind = c.metric.replace("_", " "), c.quality, c.quality_kind
    if test is None or kind == NOT_COMPARABLE:
        return METRIC[kind].format(name=name)
    decimals, interval, taken_back = metric_decimals(test.margin), "", []
    differs, margin = f"{test.difference:+.{decimals}f}", f"{test.margin:g}"
    if test.relative is not None:
        margin = f"{test.margin:.2g} ({percent(test.relative)} of the mean of {c.baseline})"
    if test.low is not None and test.high is not None:
        ends = f"{test.low:+.{decimals}f} to {test.high:+.{decimals}f}"
        interval = f"{differs} (90% interval {ends}, n = {test.n} pairs)"
    # An interval may decide where the test does not, after the correction.
    if test.p is not None and test.p < ALPHA:
        taken_back.append("it lies within the margin")
    if kind != DIFFERENT and test.p_different is not None and test.p_different < ALPHA:
        taken_back.append("it differs from 0")
    if kind == EQUIVALENT and test.difference == 0 and test.sd == 0:
        kind = "same"
    elif kind == UNDECIDED and test.sd == 0 and test.resolution is None:
        kind = "no spread"
    holm = HOLM.format(what=" and ".join(taken_back), family=c.quality_family)
    return METRIC[kind].format(
        name=name,
        n=test.n,
        margin=margin,
        differs=differs,
        interval=interval,
        holm=holm if taken_back else "",
    )


def more_sentence(c: Comparison) -> str | None:
    """Return what would have to change to know more; None where nothing sensible can be said."""
    if c.kind == ONE_PAIR:
        return "At least two seeds give an interval; five or more give a useful one."
    ratio = c.step_time
    if c.kind in (NOT_COMPARABLE, NO_PAIR) or not ratio or ratio.low is None or not ratio.log_sd:
        return None
    needed, goal = c.seeds_needed, f"±{percent(c.precision)}"
    if needed and needed <= ratio.n:
        return f"The interval is within {goal} already."
    if needed and needed <= FEASIBLE:
        return f"About {needed} seeds would narrow the interval to {goal}."
    count = needed or f"more than {statistics.MOST_SEEDS}"
    return (
        f"Pairs differ by ±{percent(np.expm1(ratio.log_sd))}, so that an interval of {goal} "
        f"would need {count} seeds: a quieter machine would help more."
    )


def terminal_lines(verdict: Mapping[str, Any], *, quality: bool = False) -> list[str]:
    """Return a verdict for the terminal, with what is flagged and left out below it.

    Args:
        verdict: as ``report.json`` has it.
        quality: also what it says of the final metric, and which seeds have no pair.
    """
    found = [f"{verdict['workload']} at {verdict['scale']}: {verdict['sentence']}"]
    found += [f"  {verdict['quality_sentence']}"] if quality else []
    found += [f"  flagged: {flag}" for flag in verdict["flags"]]
    untimed = verdict["untimed"] if verdict["kind"] != NOT_COMPARABLE else []
    for what, seeds in (
        ("left out", verdict["left_out"] if quality else []),
        ("left out of step time", untimed),
    ):
        found += [f"  {what}: seed {seed}: {why}" for seed, why in seeds[:MOST_SEEDS]]
        if more := seeds[MOST_SEEDS:]:
            found.append(f"  {what}: {len(more)} more seeds")
    return found


# Numbers --------------------------------------------------------------------------------------

MOST_DECIMALS = 9


def ratio_text(r: Ratio) -> str:
    """Return a ratio, with as many digits as its interval deserves."""
    return f"{r.value:.{_decimals(r)}f}"


def interval_text(r: Ratio) -> str:
    """Return a ratio's interval, with as many digits as it deserves."""
    if r.low is None or r.high is None:
        return "none"
    return f"{r.low:.{_decimals(r)}f} to {r.high:.{_decimals(r)}f}"


def _decimals(r: Ratio) -> int:
    """Return the decimals that show how wide an interval is, and on which side of 1 it lies."""
    decimals = max(0, 2 - max(0, math.floor(math.log10(r.value))))
    if r.low is None or r.high is None or r.low == r.high:
        return decimals
    for digits in range(decimals, MOST_DECIMALS):
        low, value, high = (round(x, digits) for x in (r.low, r.value, r.high))
        hides = r.low > 1 >= low or r.high < 1 <= high or value == 1 != r.value
        if not hides and (r.high - r.low) * 10**digits >= 2:  # units of the last place
            return digits
    return MOST_DECIMALS


def percent(share: float) -> str:
    """Return a share in percent with two significant digits."""
    return f"{float(f'{100 * share:.2g}'):g}%"


def metric_decimals(margin: float) -> int:
    """Return how many decimals of a metric a margin deserves: its own, and one more."""
    return max(4, 1 - math.floor(math.log10(margin))) if margin > 0 else 4


def some(places: Sequence[str], separator: str = ", ") -> str:
    """Return the first three places, and how many more there are."""
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return separator.join(places[:3]) + more
