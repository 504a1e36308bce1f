"""Verdicts on studies whose truth is known."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lockstep.report import analysis, build, sentences, verdicts
from lockstep.report.load import Record
from lockstep.report.run_facts import Facts, facts_of
from lockstep.report.tables import Absent
from lockstep.report.verdicts import Comparison, Side
from tests.report.report_studies import STEP_SECONDS, TWO, VARIANTS, put_json, write


def one(root: Path, **options) -> Comparison:
    """Write a study of two variants and return its only comparison."""
    (comparison,) = analysis.analyse(write(root, variants=TWO, **options)).comparisons
    return comparison


def test_a_variant_twice_as_fast_is_faster(tmp_path: Path) -> None:
    c = one(tmp_path)
    assert c.kind == verdicts.FASTER
    assert c.step_time.low < 0.5 < c.step_time.high
    assert "jax-jit is faster: it takes 0.5" in sentences.sentence(c)
    assert "n = 5 pairs" in sentences.sentence(c)


def test_equal_variants_have_no_detectable_difference(tmp_path: Path) -> None:
    c = one(tmp_path, step_seconds=dict.fromkeys(STEP_SECONDS, 0.01))
    assert c.kind == verdicts.NO_DIFFERENCE
    assert sentences.sentence(c).startswith("No detectable difference")
    assert "seeds would narrow" in sentences.more_sentence(c)


def test_a_slowdown_of_3_percent_is_found_with_enough_seeds(tmp_path: Path) -> None:
    slow = {"torch-eager": 0.010, "jax-jit": 0.0103}
    few = one(tmp_path / "few", step_seconds=slow, seeds=3, noise=0.02)
    assert few.kind == verdicts.NO_DIFFERENCE
    many = one(tmp_path / "many", step_seconds=slow, seeds=24, noise=0.02)
    assert many.kind == verdicts.SLOWER
    assert many.step_time.low < 1.03 < many.step_time.high


def test_a_single_seed_gives_a_ratio_but_no_verdict(tmp_path: Path) -> None:
    c = one(tmp_path, seeds=1)
    assert c.kind == verdicts.ONE_PAIR
    assert "no interval and no verdict" in sentences.sentence(c)
    assert "95%" not in sentences.sentence(c)


def test_an_equal_metric_is_equivalent_and_a_worse_one_is_not(tmp_path: Path) -> None:
    same = one(tmp_path / "same")
    assert same.quality_kind == verdicts.EQUIVALENT
    assert "the same in all 5 pairs" in sentences.quality_sentence(same)

    def worse(run, summary):
        if run.variant == "jax-jit":
            summary["metrics"]["test_accuracy"] -= 0.05 + 0.001 * run.seed

    worse_one = one(tmp_path / "worse", edit=worse)
    assert worse_one.quality_kind == verdicts.DIFFERENT
    assert "not shown to be equivalent" in sentences.quality_sentence(worse_one)


def test_a_seed_without_a_steady_state_is_left_out_of_step_time_by_name(tmp_path: Path) -> None:
    def brief(run, summary):
        if (run.variant, run.seed) == ("jax-jit", 2):
            summary["steady"] = {"absent": "the run had no window after its first"}

    c = one(tmp_path, edit=brief)
    assert c.kind == verdicts.FASTER
    assert "n = 4 pairs" in sentences.sentence(c)
    assert c.untimed == [(2, "jax-jit: the run had no window after its first")]
    assert c.seeds == [0, 1, 2, 3, 4] and c.quality.n == 5


def test_pairs_without_any_step_time_are_not_called_unfinished(tmp_path: Path) -> None:
    def brief(run, summary):
        summary["steady"] = {"absent": "too short"}

    said = sentences.sentence(one(tmp_path, edit=brief))
    assert "no pair of runs with a step time to compare (seed 0: torch-eager: too short)" in said


def test_the_margin_of_the_config_decides(tmp_path: Path) -> None:
    def shift(run, summary):
        if run.variant == "jax-jit":
            summary["metrics"]["test_accuracy"] -= 0.02 + 0.0001 * run.seed

    tight = one(tmp_path / "tight", edit=shift)
    wide = one(tmp_path / "wide", edit=shift, report={"margin": 0.05})
    assert (tight.quality_kind, wide.quality_kind) == (verdicts.DIFFERENT, verdicts.EQUIVALENT)


def test_failed_parity_takes_the_verdict_away(tmp_path: Path) -> None:
    from tests.report.report_studies import parity_verdict, put_json

    study = write(tmp_path, variants=VARIANTS)
    put_json(study.verdict("mnist_cnn"), parity_verdict(study, "mnist_cnn", fails="jax-jit"))
    kinds = {(c.baseline, c.candidate): c for c in analysis.analyse(study).comparisons}
    assert kinds["torch-eager", "torch-compile"].kind != verdicts.NOT_COMPARABLE
    broken = kinds["torch-eager", "jax-jit"]
    assert broken.kind == broken.quality_kind == verdicts.NOT_COMPARABLE
    assert "parity FAILS" in sentences.sentence(broken)
    assert "conv1.kernel differs by 5.00e-01" in sentences.sentence(broken)


def test_parity_without_a_verdict_is_not_proven(tmp_path: Path) -> None:
    c = one(tmp_path, parity=False)
    assert c.kind == verdicts.NOT_COMPARABLE
    assert "not proven" in sentences.sentence(c)


def test_an_interval_that_the_correction_takes_back_is_explained(tmp_path: Path) -> None:
    c = one(tmp_path, step_seconds={"torch-eager": 0.01, "jax-jit": 0.0101}, noise=0.004)
    assert c.step_time.p < 0.05
    (first, *_) = verdicts.corrected([c, *[_with_p(c, 0.9)] * 60])
    assert first.kind == verdicts.NO_DIFFERENCE
    assert "Holm's correction over 61 comparisons" in sentences.sentence(first)


def _with_p(c: Comparison, p: float) -> Comparison:
    return replace(c, step_time=replace(c.step_time, p=p))


def test_killed_runs_never_met_their_target(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO)
    for run in study.runs:
        if run.variant == "jax-jit" and run.seed:
            folder = study.run_folder(run)
            for path in folder.iterdir():
                path.unlink()
            put_json(folder / "failure.json", {"identity": "x", "reason": "signal 9"})
    build.build(study, partial=True)
    found = analysis.analyse(study)
    row = found.workloads[0].tables["target"].rows[1]
    assert (row["n"], row["reached"], row["failed"]) == (5, 1, 4)
    assert isinstance(row["median"], Absent)
    (c,) = found.comparisons
    assert c.to_target is None  # the only pair is no sample of those that got there


# By simulation, in memory ---------------------------------------------------------------------


def side(
    template: Record, label: str, steps: np.ndarray, metrics: np.ndarray | None = None
) -> Side:
    runs: dict[int, Record] = {}
    for seed, step in enumerate(steps):
        metric = 0.9 if metrics is None else float(metrics[seed])
        summary = {
            **template.summary,
            "seed": seed,
            "metrics": {"test_accuracy": metric},
        }
        runs[seed] = Record(
            workload="w",
            variant=label,
            scale="1x1",
            seed=seed,
            folder=Path(label),
            status="finished",
            summary=summary,
            windows={"steady": {"step_seconds": {"median": float(step)}}, "enough": True},
            first_losses=np.full(20, 2.3),
        )
    facts: Mapping[int, Facts] = {s: facts_of(r) for s, r in runs.items()}
    return Side(label=label, settings={}, runs=runs, facts=facts)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Record:
    study = write(tmp_path_factory.mktemp("template"), seeds=1)
    return analysis.analyse(study).records.runs[0]


def simulate(template: Record, generator: np.random.Generator, n: int, truth: float) -> list[str]:
    """Return the kinds of the three comparisons of a study with three variants."""
    seeds = np.exp(0.05 * generator.normal(size=n))  # what the pairs of a seed share
    a, b, c = (
        side(template, name, factor * 0.01 * seeds * np.exp(0.02 * generator.normal(size=n)))
        for name, factor in (("a", 1.0), ("b", 1.0), ("c", truth))
    )
    pairs = [
        verdicts.compare("w", "1x1", x, y, margin=0.01, precision=0.02)
        for x, y in ((a, b), (a, c), (b, c))
    ]
    return [c.kind for c in verdicts.corrected(pairs)]


@pytest.mark.parametrize("n", [3, 30])
def test_equal_variants_have_a_verdict_in_hardly_any_study(template, n: int) -> None:
    """How often exactly is the business of the statistics."""
    generator = np.random.default_rng(n)
    wrong = [
        any(kind != verdicts.NO_DIFFERENCE for kind in simulate(template, generator, n, 1.0))
        for _ in range(40)
    ]
    assert np.mean(wrong) <= 0.15  # 5% and three standard errors of 40 studies


def test_a_true_difference_is_named_and_in_the_right_direction(template) -> None:
    generator = np.random.default_rng(9)
    kinds = [simulate(template, generator, 5, 1.15) for _ in range(40)]
    assert np.mean([k[1] == verdicts.SLOWER and k[2] == verdicts.SLOWER for k in kinds]) > 0.95
    assert np.mean([verdicts.FASTER in k[1:] for k in kinds]) == 0


def test_equal_metrics_are_called_different_in_at_most_5_of_100_studies(template) -> None:
    generator = np.random.default_rng(11)
    wrong = []
    for _ in range(150):
        a, b, c = (
            side(template, name, np.full(5, 0.01), 0.9 + 0.02 * generator.normal(size=5))
            for name in "abc"
        )
        pairs = [
            verdicts.compare("w", "1x1", x, y, margin=0.01, precision=0.02)
            for x, y in ((a, b), (a, c), (b, c))
        ]
        kinds = [pair.quality_kind for pair in verdicts.corrected(pairs)]
        wrong.append(verdicts.DIFFERENT in kinds)
    assert np.mean(wrong) <= 0.085  # 5% and two standard errors of 150 studies


# How a verdict is said --------------------------------------------------------------------------


def said(template: Record, logs: np.ndarray, metrics: float = 0.0, **options: float) -> Comparison:
    """Return the comparison of pairs whose log ratios and metrics' differences are known."""
    n = len(logs)
    noise = 1e-6 * np.arange(n) * metrics
    a = side(template, "a", np.full(n, 0.01), np.full(n, 0.9))
    b = side(template, "b", 0.01 * np.exp(logs), 0.9 + metrics + noise)
    settings = {"margin": 0.01, "precision": 0.02, **options}
    (c,) = verdicts.corrected([verdicts.compare("w", "1x1", a, b, **settings)])
    return c


def spread(mean: float, width: float) -> np.ndarray:
    return mean + width * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("mean", "width", "words"),
    [
        (-4e-4, 3e-5, "it takes 0.99960 times"),
        (np.log(1 / 250), 0.05, "it takes 0.0040 times"),
        (np.log(250), 0.01, "it takes 250.0 times"),
        (np.log(0.5), 0.1, "it takes 0.50 times"),
        (np.log(0.97), 0.001, "it takes 0.970 times"),
    ],
)
def test_a_ratio_has_the_digits_that_its_interval_deserves(template, mean, width, words) -> None:
    c = said(template, spread(mean, width))
    text = sentences.sentence(c)
    assert words in text
    low, high = text.partition("interval ")[2].partition(",")[0].split(" to ")
    assert float(low) < c.step_time.value < float(high)
    assert (float(high) < 1) == (mean < 0)


def test_a_precision_below_one_percent_is_not_called_0_percent(template) -> None:
    more = sentences.more_sentence(said(template, spread(0.0, 0.01), precision=0.004))
    assert more is not None and "±0.4%" in more


def test_a_small_margin_is_said_with_as_many_decimals_as_it_needs(template) -> None:
    c = said(template, spread(0.0, 0.01), metrics=3e-5, margin=1e-5)
    assert "+0.000030" in sentences.quality_sentence(c)


def test_what_the_correction_takes_back_of_a_metric_is_explained(template) -> None:
    within = said(template, spread(0.0, 0.01), metrics=3e-3)
    assert within.quality_kind == verdicts.EQUIVALENT
    taken = replace(within, quality_p_holm=0.5, different_p_holm=0.5, quality_family=61)
    assert taken.quality_kind == verdicts.UNDECIDED
    text = sentences.quality_sentence(taken)
    assert "n = 5 pairs), which is not enough to lie within the margin" in text
    assert "or to be different from 0 after Holm's correction over 61 comparisons." in text
    differs = replace(taken, different_p_holm=0.01)
    assert "and differs" in sentences.quality_sentence(differs)
    assert "not enough to lie within the margin after" in sentences.quality_sentence(differs)


def test_pairs_whose_ratios_agree_to_the_bit_claim_nothing(template) -> None:
    c = said(template, np.full(5, np.log(0.5)))
    assert c.kind == verdicts.NO_DIFFERENCE and c.step_time.low is None
    assert sentences.sentence(c) == (
        "No statement on step time: b took 0.50 times the step time of a in each of 5 pairs, and "
        "without any spread nothing can be tested."
    )
    assert sentences.more_sentence(c) is None
