"""Verdicts on studies whose truth is known, and how they are worded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lockstep.report import analysis, sentences, statistics, verdicts
from lockstep.report.verdicts import Comparison
from tests.report.planted import comparison, on_jax, threats_of, update
from tests.report.report_studies import STEP_SECONDS, TWO, write

SLOW = {"torch-eager": 0.010, "jax-jit": 0.020}


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({}, verdicts.FASTER, ("jax-jit is faster: it takes 0.5", "n = 5 pairs")),
        ({"step_seconds": dict.fromkeys(TWO, 0.01)}, verdicts.NO_DIFFERENCE, ("No detectable",)),
        ({"step_seconds": SLOW}, verdicts.SLOWER, ("jax-jit is slower: it takes 2.0",)),
        ({"seeds": 1}, verdicts.ONE_PAIR, ("one pair gives no interval and no verdict.",)),
    ],
)
def test_a_verdict_is_what_was_planted(tmp_path, options, kind, words) -> None:
    c = comparison(tmp_path, **options)
    said = sentences.sentence(c)
    assert c.kind == kind and all(word in said for word in words)
    assert ("95%" in said) == (kind != verdicts.ONE_PAIR)
    truth = np.divide(*[options.get("step_seconds", STEP_SECONDS)[v] for v in reversed(TWO)])
    assert c.step_time.low is None or c.step_time.low < truth < c.step_time.high


def changed_by(difference: float, base: float = 0.0):
    """Return an edit: JAX's accuracy is higher by so much, and a little more for each seed."""

    def edit(run, summary) -> None:
        metrics = summary["metrics"]
        metrics["test_accuracy"] = base or metrics["test_accuracy"]
        if run.variant == "jax-jit":
            metrics["test_accuracy"] += difference * (1 + run.seed / 100)

    return edit


def test_the_margin_of_the_config_decides_what_is_equivalent(tmp_path: Path) -> None:
    same = comparison(tmp_path / "same")
    assert same.quality_kind == verdicts.EQUIVALENT
    assert "the same in all 5 pairs" in sentences.quality_sentence(same)
    tight = comparison(tmp_path / "tight", changed_by(-0.02))
    assert tight.quality_kind == verdicts.DIFFERENT
    assert "not shown to be equivalent" in sentences.quality_sentence(tight)
    wide = comparison(tmp_path / "wide", changed_by(-0.02), report={"margin": 0.05})
    assert wide.quality_kind == verdicts.EQUIVALENT


def test_the_margin_of_a_metric_that_is_no_share_is_relative(tmp_path: Path) -> None:
    """Perplexities near 20, of which JAX's is higher by 0.1: within 1% of them."""

    def perplexity(run, summary) -> None:
        summary["units"] = {"test_accuracy": {"name": "accuracy", "unit": ""}}
        changed_by(0.1, base=20.0)(run, summary)

    c = comparison(tmp_path, perplexity)
    assert c.quality_kind == verdicts.EQUIVALENT and c.quality.margin == pytest.approx(0.2)
    said = sentences.quality_sentence(c)
    assert "equivalent within ±0.2 (1% of the mean of torch-eager): +0.1020" in said


BRIEF = "the run had no window after its first"
NAN = update(status="failed", reason="the loss is nan")


@pytest.mark.parametrize(
    ("options", "left_out", "untimed"),
    [
        ({"skip": lambda run: "jax-jit/1x1/seed-2" in run.name}, ["missing: never started"], []),
        ({"edit": on_jax(NAN, seed=2)}, ["failed: the loss is nan"], []),
        ({"edit": on_jax(update(steady={"absent": BRIEF}), seed=2)}, [], [BRIEF]),
    ],
)
def test_a_seed_that_cannot_be_paired_is_left_out_by_name(tmp_path, options, left_out, untimed):
    found = analysis.analyse(write(tmp_path, variants=TWO, **options))
    (c,) = found.comparisons
    assert c.kind == verdicts.FASTER and c.step_time.n == 4
    assert c.left_out == [(2, f"jax-jit {why}") for why in left_out]
    assert c.untimed == [(2, f"jax-jit: {why}") for why in untimed]
    assert c.quality.n == 5 - len(left_out)
    # Those who arrived are no sample of all where a run failed.
    assert (c.to_target is None) == ("failed: the loss is nan" in left_out)
    assert ("Lost runs" in threats_of(found)) == bool(left_out)


# How a verdict is worded ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def fair(tmp_path_factory) -> Comparison:
    return comparison(tmp_path_factory.mktemp("fair"))


def worded(fair: Comparison, mean, width, metrics=0.0, margin=0.01, precision=0.02) -> Comparison:
    """Return the comparison of pairs whose log ratios and metrics' differences are known."""
    time = statistics.ratio(np.ones(5), np.exp(mean + width * np.linspace(-1, 1, 5)))
    changes = metrics * (1 + 1e-6 * np.arange(5))
    quality = statistics.equivalence(np.zeros(5), changes, margin)
    known = replace(fair, step_time=time, quality=quality, precision=precision)
    return verdicts.corrected([known])[0]


@pytest.mark.parametrize(
    ("mean", "width", "words"),
    [
        (-4e-4, 3e-5, "it takes 0.99960 times"),
        (np.log(1 / 250), 0.05, "it takes 0.0040 times"),
        (np.log(250), 0.01, "it takes 250 times"),
        (np.log(0.5), 0.1, "it takes 0.50 times"),
        (-3e-3, 2.4e-3, "it takes 0.997 times"),
    ],
)
def test_a_ratio_has_the_digits_that_its_interval_deserves(fair, mean, width, words) -> None:
    c = worded(fair, mean, width)
    text = sentences.sentence(c)
    assert words in text
    low, high = text.partition("interval ")[2].partition(",")[0].split(" to ")
    assert float(low) < c.step_time.value < float(high)
    assert (float(high) < 1) == (mean < 0)


def test_small_numbers_are_not_rounded_away_and_too_many_seeds_not_proposed(fair) -> None:
    c = worded(fair, 0.0, 0.01, metrics=3e-5, margin=1e-5, precision=0.004)
    assert "seeds would narrow the interval to ±0.4%" in sentences.more_sentence(c)
    assert "+0.000030" in sentences.quality_sentence(c)
    more = sentences.more_sentence(worded(fair, 0.0, 0.5))
    assert "a quieter machine would help more" in more


def test_what_the_correction_takes_back_of_a_time_is_explained(fair) -> None:
    c = worded(fair, 0.01, 0.008)
    assert c.step_time.p < 0.05
    others = [replace(c, step_time=replace(c.step_time, p=0.9))] * 60
    (first, *_) = verdicts.corrected([c, *others])
    assert first.kind == verdicts.NO_DIFFERENCE
    words = "it differs from 1 without Holm's correction over 61 comparisons, but not with it"
    assert words in sentences.sentence(first)


def test_what_the_correction_takes_back_of_a_metric_is_explained(fair) -> None:
    within = worded(fair, 0.0, 0.01, metrics=3e-3)
    assert within.quality_kind == verdicts.EQUIVALENT
    doubtful = replace(within, quality=replace(within.quality, p=0.04, p_different=0.03))
    (first, _) = verdicts.corrected([doubtful, doubtful])
    assert (first.quality_p_holm, first.different_p_holm) == (0.08, 0.06)
    taken = replace(within, quality_p_holm=0.5, different_p_holm=0.5, quality_family=61)
    assert taken.quality_kind == verdicts.UNDECIDED
    text = sentences.quality_sentence(taken)
    assert "n = 5 pairs); it lies within the margin and it differs from 0 without Holm's" in text
    assert "correction over 61 comparisons, but not with it." in text
    differs = replace(taken, different_p_holm=0.01)
    assert "and differs" in sentences.quality_sentence(differs)
    assert "it lies within the margin without Holm's" in sentences.quality_sentence(differs)


def test_pairs_whose_ratios_agree_to_the_bit_claim_nothing(fair) -> None:
    c = worded(fair, np.log(0.5), 0.0)
    assert c.kind == verdicts.NO_DIFFERENCE and c.step_time.low is None
    assert sentences.sentence(c) == (
        "No statement on step time: jax-jit took 0.50 times the step time of torch-eager in "
        "each of 5 pairs, and without any spread nothing can be tested."
    )
    assert sentences.more_sentence(c) is None
