"""The statistics say what is true, as often as they claim to."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lockstep.report import resampling, statistics

TRUTH = math.log(1.05)


def coverage(low: np.ndarray, high: np.ndarray) -> float:
    return float(((low <= TRUTH) & (high >= TRUTH)).mean())


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the bootstrap's draws, which is enough for thousands of studies together."""
    monkeypatch.setattr(resampling, "DRAWS", 1_999)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("n", [3, 5, 10, 19, 20, 30])
def test_the_interval_covers_the_truth_in_95_of_100_studies(n: int) -> None:
    logs = np.random.default_rng(n).normal(TRUTH, 0.05, size=(2_500 if n >= 20 else 20_000, n))
    assert 0.94 <= coverage(*statistics.Mean.of(logs).interval(0.95)) <= 0.96


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("n", [5, 30])
def test_skewed_step_times_cost_little_coverage(n: int) -> None:
    """Times that are sometimes late: an exponential delay of 3% on either side."""
    delays = np.random.default_rng(0).exponential(0.03, size=(2, 2_500, n))
    logs = TRUTH + np.log1p(delays[0]) - np.log1p(delays[1])
    assert 0.93 <= coverage(*statistics.Mean.of(logs).interval(0.95)) <= 0.97


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_a_difference_is_claimed_wrongly_in_at_most_5_of_100_studies(n: int) -> None:
    """Three equal variants; Holm's first step rejects where the smallest p is below a third."""
    times = np.random.default_rng(n).normal(0, 0.02, size=(3, 2_500, n))
    pairs = [times[0] - times[1], times[0] - times[2], times[1] - times[2]]
    smallest = np.min([statistics.Mean.of(logs).p() for logs in pairs], axis=0)
    assert 0.02 < np.mean(3 * smallest < 0.05) <= 0.06


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("n", [5, 30])
def test_equivalence_is_claimed_wrongly_in_at_most_5_of_100_studies(n: int) -> None:
    """The true difference is the margin."""
    values = np.random.default_rng(n).normal(0.01, 0.004, size=(2_500, n))
    assert 0.04 < np.mean(statistics.Mean.of(values).p_below(0.01) < 0.05) <= 0.06


def test_the_draws_are_those_of_scipys_bootstrap() -> None:
    values = np.random.default_rng(8).exponential(size=25)

    def t(x: np.ndarray, axis: int) -> np.ndarray:
        return (x.mean(axis) - values.mean()) / (x.std(axis, ddof=1) / 5)

    theirs = stats.bootstrap((values,), t, n_resamples=19_999, rng=np.random.default_rng(9))
    shares = [0.005, 0.025, 0.1, 0.5, 0.9, 0.975, 0.995]
    mine = np.quantile(resampling.studentized(values).draws, shares)
    expected = np.quantile(theirs.bootstrap_distribution, shares)
    assert mine == pytest.approx(expected, rel=0.06, abs=0.03)


def test_few_distinct_values_give_an_interval_and_no_error() -> None:
    rare = np.r_[np.zeros(24), 1 / 360]
    test = statistics.equivalence(np.zeros(25), rare, 0.01, 1 / 360)
    assert test.p < 0.05 and test.low <= test.difference <= test.high
    unknown = statistics.equivalence(np.zeros(25), rare, 0.01)
    assert unknown.p_different > 0.05 and not math.isnan(unknown.low)


def test_a_ratio_is_the_geometric_mean_and_its_interval_contains_it() -> None:
    generator = np.random.default_rng(1)
    for n in (2, 5, 19, 20, 40):
        a = 0.01 * np.exp(0.02 * generator.normal(size=n))
        b = 0.97 * a * np.exp(0.01 * generator.normal(size=n))
        r = statistics.ratio(a, b)
        assert r.value == pytest.approx(float(np.exp(np.mean(np.log(b / a)))))
        assert r.low is not None and r.high is not None and r.low < r.value < r.high


@pytest.mark.parametrize("n", [2, 5, 20, 40])
def test_the_95_percent_interval_holds_1_exactly_where_the_test_does_not_reject(n: int) -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        logs = generator.exponential(0.02, n) - 0.012  # skewed, and near 0
        r = statistics.ratio(np.ones(n), np.exp(logs))
        assert r.low is not None and r.high is not None and r.p is not None
        assert (r.low <= 1 <= r.high) == (r.p >= 0.05)


def test_one_pair_gives_no_interval_and_no_test() -> None:
    r = statistics.ratio(np.array([2.0]), np.array([1.0]))
    assert (r.value, r.low, r.high, r.p) == (0.5, None, None, None)
    e = statistics.equivalence(np.array([0.9]), np.array([0.9]), 0.01)
    assert (e.low, e.high, e.p) == (None, None, None)


def test_pairs_that_agree_to_the_bit_are_no_difference() -> None:
    same = np.array([1.0, 2.0, 3.0])
    assert statistics.ratio(same, same).p == 1.0


def test_pairs_that_agree_to_the_example_are_tested_with_a_spread_of_one_example() -> None:
    same = np.full(5, 0.9)
    assert statistics.equivalence(same, same, 0.01, 1 / 360).p < 0.05
    assert statistics.equivalence(same[:2], same[:2], 0.01, 1 / 360).p > 0.05


def test_without_any_spread_and_any_known_step_nothing_is_claimed() -> None:
    shifted = statistics.equivalence(np.zeros(2), np.full(2, 0.004), 0.01)
    assert (shifted.p, shifted.p_different) == (1.0, 1.0)


@pytest.mark.parametrize("n", [2, 3])
def test_few_pairs_of_few_test_images_claim_equivalence_wrongly_in_at_most_5_of_100(n) -> None:
    """Accuracies on 360 images whose difference is the margin: 1 image, 2 images, … apart."""
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


def test_equal_metrics_are_called_different_in_at_most_5_of_100_comparisons() -> None:
    generator = np.random.default_rng(7)
    claims = [
        statistics.equivalence(np.zeros(5), generator.normal(0, 0.05, 5), 0.01).p_different < 0.05
        for _ in range(2_000)
    ]
    assert np.mean(claims) <= 0.06


@pytest.mark.parametrize("n", [4, 25])
def test_the_90_percent_interval_decides_as_the_test_does(n: int) -> None:
    generator = np.random.default_rng(n)
    for _ in range(200):
        spread = 0.0025 * math.sqrt(n)
        e = statistics.equivalence(np.zeros(n), generator.normal(0.004, spread, n), 0.01)
        assert (e.p < 0.05) == (e.low > -0.01 and e.high < 0.01)


def test_holm_leaves_what_has_no_p_value_alone() -> None:
    assert statistics.holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert statistics.holm([None]) == [None]


def test_holms_correction_is_that_of_statsmodels() -> None:
    random = np.random.default_rng(6)
    for n in range(1, 40):
        p = np.round(random.random(n) ** 4, 3)  # some of them equal
        theirs = multipletests(p, method="holm")[1]
        np.testing.assert_allclose(statistics.holm(list(p)), theirs, rtol=1e-15)


@pytest.mark.parametrize("sd", [0.0, 0.01, 0.03, 0.2])
def test_the_seeds_named_are_the_fewest_that_suffice(sd: float) -> None:
    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)

    needed = statistics.seeds_needed(sd, 0.02)
    assert needed is not None
    assert half(needed) <= math.log(1.02)
    assert needed == 2 or half(needed - 1) > math.log(1.02)


def test_no_number_of_seeds_is_named_where_none_suffices() -> None:
    assert statistics.seeds_needed(10.0, 0.02) is None


def test_the_median_of_censored_times_counts_who_never_arrived() -> None:
    times = np.array([1.0, 2.0, 3.0, 9.0, 9.0])
    reached = np.array([True, True, True, False, False])
    assert statistics.censored_median(times, reached) == 3.0
    assert statistics.censored_median(times, ~np.ones(5, bool)) is None


@pytest.mark.parametrize("n", range(2, 60, 2))
def test_the_median_is_the_time_at_which_exactly_half_have_arrived(n: int) -> None:
    times = np.arange(1.0, n + 1)
    assert statistics.censored_median(times, times <= n // 2) == n // 2


def test_censored_medians_are_those_of_scipy() -> None:
    random = np.random.default_rng(5)
    for _ in range(300):
        times = random.integers(1, 9, random.integers(1, 12)).astype(float)
        reached = random.random(len(times)) < 0.7
        survival = stats.ecdf(stats.CensoredData.right_censored(times, ~reached)).sf
        below = survival.quantiles[survival.probabilities <= 0.5 + 1e-9]
        assert statistics.censored_median(times, reached) == (below[0] if len(below) else None)


@pytest.mark.parametrize("degrees", [1, 2, 8, 18])
def test_students_distribution_is_that_of_scipy(degrees: int) -> None:
    mine, theirs, t = statistics.Student(degrees), stats.t(degrees), np.linspace(-40, 40, 81)
    np.testing.assert_array_equal(mine.cdf(t), theirs.cdf(t))
    np.testing.assert_array_equal(mine.sf(t), theirs.sf(t))
    assert mine.ppf(0.975) == theirs.ppf(0.975)
