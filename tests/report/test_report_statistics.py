"""The statistics say what is true, as often as they claim to."""

import gc
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lockstep.report import statistics
from lockstep.report.statistics import Mean

TRUTH = math.log(1.05)


def coverage(logs: np.ndarray) -> float:
    low, high = Mean.of(logs).interval()
    return float(((low <= TRUTH) & (high >= TRUTH)).mean())


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_intervals_cover_the_truth_and_claims_are_wrong_in_5_of_100_studies(n: int) -> None:
    """Also of late times; of three equal variants; of a metric that differs by the margin."""
    generator = np.random.default_rng(n)
    assert 0.945 <= coverage(generator.normal(TRUTH, 0.05, size=(20_000, n))) <= 0.955
    late, other = np.log1p(generator.exponential(0.03, size=(2, 20_000, n)))
    assert 0.94 <= coverage(TRUTH + late - other) <= 0.97
    a, b, c = generator.normal(0, 0.02, size=(3, 20_000, n))
    smallest = np.min([Mean.of(logs).p() for logs in (a - b, a - c, b - c)], axis=0)
    assert 0.02 < np.mean(3 * smallest < 0.05) <= 0.052  # where Holm's first step rejects
    margin = generator.normal(0.01, 0.004, size=(20_000, n))
    assert 0.045 < np.mean(Mean.of(margin).p_below(0.01) < 0.05) <= 0.055


@pytest.mark.parametrize("n", [2, 5, 20, 40])
def test_a_ratio_and_its_test_are_those_of_scipys_paired_t_test(n: int) -> None:
    generator = np.random.default_rng(n)
    a = 0.01 * np.exp(0.02 * generator.normal(size=n))
    b = 0.97 * a * np.exp(0.01 * generator.normal(size=n))
    r, theirs = statistics.ratio(a, b), stats.ttest_rel(np.log(b), np.log(a))
    interval = np.exp(theirs.confidence_interval(0.95))
    assert (r.n, r.p) == (n, pytest.approx(theirs.pvalue, rel=1e-9))
    assert (r.low, r.high) == pytest.approx(tuple(interval), rel=1e-12)
    assert r.value == pytest.approx(stats.gmean(b / a))


@pytest.mark.parametrize("n", [3, 25])
def test_equivalence_is_two_of_scipys_one_sided_tests(n: int) -> None:
    generator = np.random.default_rng(n)
    for _ in range(50):
        a, b = np.zeros(n), generator.normal(0.004, 0.0025 * math.sqrt(n), n)
        e = statistics.equivalence(a, b, 0.01)
        above = stats.ttest_1samp(b, -0.01, alternative="greater").pvalue
        below = stats.ttest_1samp(b, 0.01, alternative="less").pvalue
        assert e.p == pytest.approx(max(above, below), rel=1e-9)
        assert e.p_different == pytest.approx(stats.ttest_rel(b, a).pvalue, rel=1e-9)
        assert (e.p < 0.05) == (e.low > -0.01 and e.high < 0.01)  # the 90% interval decides so too


def test_one_pair_and_pairs_without_spread_claim_nothing() -> None:
    r = statistics.ratio(np.array([2.0]), np.array([1.0]))
    assert (r.value, r.low, r.high, r.p) == (0.5, None, None, None)
    e = statistics.equivalence(np.array([0.9]), np.array([0.9]), 0.01)
    assert (e.low, e.high, e.p) == (None, None, None)
    same = np.array([1.0, 2.0, 3.0])
    assert statistics.ratio(same, same).p == 1.0
    shifted = statistics.equivalence(np.zeros(2), np.full(2, 0.004), 0.01)
    assert (shifted.p, shifted.p_different) == (1.0, 1.0)


@pytest.mark.parametrize("n", [2, 3])
def test_few_pairs_of_few_test_images_claim_equivalence_wrongly_in_at_most_5_of_100(n) -> None:
    """Accuracies on 360 images whose true difference is the margin."""
    generator = np.random.default_rng(n)
    wrong = []
    for _ in range(1_000):
        a = generator.binomial(360, 0.97, n) / 360
        b = np.clip(a + generator.choice([3, 4], n, p=[0.4, 0.6]) / 360, 0, 1.1)
        wrong.append(statistics.equivalence(a, b, 3.6 / 360, 1 / 360).p < 0.05)
    assert np.mean(wrong) <= 0.05


def test_the_step_of_a_metric_is_found_from_its_values() -> None:
    shares = np.random.default_rng(5).integers(300, 360, 12) / 360
    assert statistics.resolution(shares) == pytest.approx(1 / 360)
    assert statistics.resolution(shares.astype(np.float32)) == pytest.approx(1 / 360)
    assert statistics.resolution(np.random.default_rng(6).normal(size=12)) is None
    assert statistics.resolution(np.array([])) is None


def test_holms_correction_is_that_of_statsmodels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert statistics.holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert statistics.holm([None]) == [None]
    random = np.random.default_rng(6)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # as it does each time, of all of the process
    for n in range(1, 40):
        p = np.round(random.random(n) ** 4, 3)  # some of them equal
        theirs = multipletests(p, method="holm")[1]
        np.testing.assert_allclose(statistics.holm(list(p)), theirs, rtol=1e-15)


@pytest.mark.parametrize("sd", [0.0, 0.01, 0.03, 0.2])
def test_the_seeds_named_are_the_fewest_that_suffice(sd: float) -> None:
    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)

    needed = statistics.seeds_needed(sd, 0.02)
    assert needed is not None and half(needed) <= math.log(1.02)
    assert needed == 2 or half(needed - 1) > math.log(1.02)
    assert statistics.seeds_needed(10.0, 0.02) is None


def test_the_median_of_censored_times_is_the_time_at_which_half_have_arrived() -> None:
    for n in range(2, 60, 2):
        times = np.arange(1.0, n + 1)
        assert statistics.censored_median(times, times <= n // 2) == n // 2
        assert statistics.censored_median(times, times < n // 2) is None


def test_censored_medians_are_those_of_scipy() -> None:
    random = np.random.default_rng(5)
    for _ in range(300):
        times = random.integers(1, 9, random.integers(1, 12)).astype(float)
        reached = random.random(len(times)) < 0.7
        survival = stats.ecdf(stats.CensoredData.right_censored(times, ~reached)).sf
        below = survival.quantiles[survival.probabilities <= 0.5 + 1e-9]
        assert statistics.censored_median(times, reached) == (below[0] if len(below) else None)
