"""The top of the page: for each workload and scale what is proven, and every verdict."""

import itertools
from collections.abc import Sequence
from typing import Any

from lockstep.report import firststep, frames, proof, sentences, verdicts
from lockstep.report.analysis import Analysis
from lockstep.report.tables import number
from lockstep.report.verdicts import Comparison

MOST_CARDS = 12
"""Verdicts at the top; beyond, those against the first variant, and the table has all."""

BADGES = {
    verdicts.FASTER: ("▲", "faster"),
    verdicts.SLOWER: ("▼", "slower"),
    verdicts.NO_DIFFERENCE: ("=", "no detectable difference"),
    verdicts.ONE_PAIR: ("?", "one pair only"),
    verdicts.NO_PAIR: ("?", "nothing to compare"),
    verdicts.NOT_COMPARABLE: ("✗", "not comparable"),
}


def carded(analysis: Analysis) -> list[Comparison]:
    """Return the comparisons that have a card at the top: all, or those with the first variant."""
    first = next(iter(analysis.records.study.config["variants"]))
    if len(analysis.comparisons) <= MOST_CARDS:
        return list(analysis.comparisons)
    return [c for c in analysis.comparisons if c.baseline == first]


def places(analysis: Analysis) -> list[dict[str, Any]]:
    """Return the verdicts for the top of the page, by workload and scale."""
    config = analysis.records.study.config
    cards = carded(analysis)
    result = []
    for workload, scale in itertools.product(config["workloads"], config["scales"]):
        here = (workload, scale)
        group = [c for c in cards if (c.workload, c.scale) == here]
        compared = [c for c in analysis.comparisons if (c.workload, c.scale) == here]
        result.append(
            {
                "workload": workload,
                "scale": scale,
                "parity": parity(analysis, workload, scale, compared),
                "cards": [_card(c) for c in group],
                "alone": _alone(analysis, workload, scale) if not compared else None,
            }
        )
    return result


def _alone(analysis: Analysis, workload: str, scale: str) -> str:
    """Return what is said where there is one variant, so that nothing can be compared."""
    (variant,) = analysis.records.study.config["variants"]
    said = f"{variant} is the only variant of this study: there is nothing to compare it with."
    runs = analysis.runs[
        (analysis.runs["workload"] == workload) & (analysis.runs["scale"] == scale)
    ]
    if "step_median" not in runs or not frames.finished(runs)["step_median"].notna().any():
        return said
    timed = frames.finished(runs)["step_median"].dropna()
    runs_text = f"{len(timed)} run{'s' if len(timed) > 1 else ''}"
    return f"{said} Its step takes {number(timed.median() * 1e3)} ms (median of {runs_text})."


def parity(
    analysis: Analysis, workload: str, scale: str, compared: Sequence[Comparison]
) -> dict[str, str]:
    """Return what is proven of a workload at a scale, in a word and in a sentence."""
    records = analysis.records
    variants = records.study.config["variants"]
    problems = {v: proof.parity_problem(records, workload, v) for v in variants}
    words = {v: proof.parity_word(records, workload, v) for v in variants}
    if workload not in records.parity:
        return {"word": "NOT PROVEN", "symbol": "?", "text": "there is no readable parity verdict"}
    for word, symbol in (("FAIL", "✗"), ("NOT PROVEN", "?")):
        bad = [v for v in variants if words[v] == word]
        if bad:
            others = [v for v in variants if words[v] not in ("PASS", word)]
            text = "; ".join(str(problems[v]) for v in (*bad, *others))
            return {"word": word, "symbol": symbol, "text": text}
    first = [c.first_step for c in compared if c.first_step]
    apart = [
        problem
        for c in compared
        if (problem := firststep.problem(c.first_step, (c.baseline, c.candidate)))
    ]
    if apart:
        return {"word": "NOT PROVEN", "symbol": "?", "text": f"at this scale, {apart[0]}"}
    text = proof.claim(records, workload) or "there is one variant, and no trace to compare it with"
    if first:
        text += (
            f"; at this scale the first losses of {sum(f.pairs for f in first)} pairs agree "
            f"within {max(f.largest for f in first):.1e}"
        )
    if not proof.compared(records, workload):
        return {"word": "NOT TRACED", "symbol": "=", "text": text}
    return {"word": "PASS", "symbol": "✓", "text": text}


def _card(c: Comparison) -> dict[str, Any]:
    symbol, word = BADGES[c.kind]
    return {
        "kind": c.kind.replace(" ", "-"),
        "symbol": symbol,
        "word": word,
        "candidate": c.candidate,
        "baseline": c.baseline,
        "sentence": sentences.sentence(c),
        "quality": sentences.quality_sentence(c),
        "more": sentences.more_sentence(c),
        "problems": [*c.problems, *c.timing_problems][1:],
        "flags": [verdicts.difference_text(d) for d in c.flags],
        "left_out": [
            *(f"Seed {seed} is left out: {why}." for seed, why in c.left_out),
            *(f"Seed {seed} is left out of step time: {why}." for seed, why in c.untimed),
        ],
    }
