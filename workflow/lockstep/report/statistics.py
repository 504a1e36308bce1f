"""The statistics of the report. Every number of a run is one observation; seeds are the sample.

Sources: paired t interval of log ratios, Student 1908; expanded percentile bootstrap, Hesterberg,
"What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015), section 5;
two one-sided tests (TOST), Schuirmann 1987; step-down correction, Holm 1979; median of censored
times, Kaplan & Meier 1958. Implementations are scipy's and statsmodels'.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

LEVEL = 0.95
BOOTSTRAP_FROM = 20
"""Pairs from which the interval is bootstrapped; below, a t interval covers what it says."""

RESAMPLES = 9_999
RANDOM_STATE = 20_240_229
MOST_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of paired times, candidate over baseline.

    Attributes:
        n: pairs.
        value: geometric mean of the pairs' ratios.
        low, high: 95% interval, None for a single pair.
        p: two-sided, that the mean log ratio is 0; None for a single pair.
        log_sd: standard deviation of the log ratios.
        method: how the interval was made.
    """

    n: int
    value: float
    low: float | None
    high: float | None
    p: float | None
    log_sd: float | None
    method: str


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """A two-sided equivalence test of paired values, candidate less baseline.

    Attributes:
        n: pairs.
        difference: mean.
        low, high: 90% interval: within the margin exactly when both one-sided tests reject at 5%.
        p: the larger of the two one-sided p values; None for a single pair.
        margin: differences smaller than this do not matter.
        sd: standard deviation of the differences.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    p: float | None
    margin: float
    sd: float | None


def t_interval(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return Student's interval of the mean over the last axis of ``(…, n)``, n at least 2."""
    n = values.shape[-1]
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(axis=-1, ddof=1) / math.sqrt(n)
    mean = values.mean(axis=-1)
    return mean - half, mean + half


def bootstrap_interval(
    values: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Return the expanded percentile interval of the mean over the last axis of ``(…, n)``.

    A plain percentile interval is too narrow by sqrt((n - 1) / n) and by normal instead of t
    quantiles; the level is raised so that it is as wide as it should be (Hesterberg 2015).
    """
    n = values.shape[-1]
    reach = math.sqrt(n / (n - 1)) * stats.t.ppf((1 + level) / 2, n - 1)
    result = stats.bootstrap(
        (values,),
        np.mean,
        axis=-1,
        confidence_level=1 - 2 * stats.norm.sf(reach),
        n_resamples=resamples,
        method="percentile",
        vectorized=True,
        batch=max(1, 4_000_000 // values.size),
        rng=np.random.default_rng(RANDOM_STATE),
    )
    return np.asarray(result.confidence_interval.low), np.asarray(result.confidence_interval.high)


def ratio(baseline: np.ndarray, candidate: np.ndarray) -> Ratio:
    """Return the ratio of paired positive times ``(n,)``.

    The p value is the paired t test's on log ratios, whichever way the interval was made.
    """
    logs = np.log(candidate) - np.log(baseline)
    n = len(logs)
    if n == 1:
        return Ratio(
            n=1,
            value=float(np.exp(logs[0])),
            low=None,
            high=None,
            p=None,
            log_sd=None,
            method="one pair gives no interval",
        )
    large = n >= BOOTSTRAP_FROM
    low, high = (bootstrap_interval if large else t_interval)(logs)
    sd = float(logs.std(ddof=1))
    if sd < 1e-12:  # all pairs agree to the bit: no test can be made of that
        p = 1.0 if abs(logs.mean()) < 1e-12 else 0.0
    else:
        p = float(stats.ttest_1samp(logs, 0.0).pvalue)
    return Ratio(
        n=n,
        value=float(np.exp(logs.mean())),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        p=p,
        log_sd=sd,
        method="expanded percentile bootstrap of log ratios"
        if large
        else "t interval of log ratios",
    )


def equivalence(baseline: np.ndarray, candidate: np.ndarray, margin: float) -> Equivalence:
    """Test paired values ``(n,)`` for equivalence within ``±margin`` (TOST)."""
    differences = candidate - baseline
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return Equivalence(
            n=1, difference=mean, low=None, high=None, p=None, margin=margin, sd=None
        )
    sd = float(differences.std(ddof=1))
    if sd < 1e-15:  # e.g. equal to the last test image in every pair
        p = 0.0 if abs(mean) < margin else 1.0
        low = high = mean
    else:
        described = DescrStatsW(differences)
        p = float(described.ttost_mean(-margin, margin)[0])
        low, high = map(float, described.tconfint_mean(alpha=0.10))
    return Equivalence(n=n, difference=mean, low=low, high=high, p=p, margin=margin, sd=sd)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p values over those that are not None."""
    known = [value for value in p if value is not None]
    if not known:
        return list(p)
    adjusted = iter(multipletests(known, method="holm")[1])
    return [None if value is None else float(next(adjusted)) for value in p]


def seeds_needed(log_sd: float, precision: float) -> int | None:
    """Return how many pairs make the 95% interval of a ratio as narrow as ``±precision``.

    The smallest n with t(n - 1) x sd / sqrt(n) <= log(1 + precision), taking the spread that was
    measured for the true one; None if that is more than `MOST_SEEDS`.
    """
    goal = math.log1p(precision)

    def half(n: int) -> float:
        return float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * log_sd / math.sqrt(n)

    if half(MOST_SEEDS) > goal:
        return None
    low, high = 1, MOST_SEEDS  # half(high) is narrow enough, half(low) is not (or low is 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if half(middle) <= goal else (middle, high)
    return high


def mean_interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Return the mean of ``(n,)`` and its 95% t interval (None for n = 1)."""
    if len(values) < 2:
        return float(values.mean()), None, None
    low, high = t_interval(values)
    return float(values.mean()), float(low), float(high)


def censored_median(times: np.ndarray, reached: np.ndarray) -> float | None:
    """Return the Kaplan-Meier median of times ``(n,)``; None if half of them never got there.

    Where `reached` is False, the time is only a lower bound.
    """
    data = stats.CensoredData.right_censored(times, ~reached)
    survival = stats.ecdf(data).sf
    below = survival.quantiles[survival.probabilities <= 0.5]
    return float(below[0]) if len(below) else None
