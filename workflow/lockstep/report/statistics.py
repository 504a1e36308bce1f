"""The statistics of the report. Every number of a run is one observation; seeds are the sample.

Sources: paired t test and interval of log ratios, Student 1908; two one-sided tests (TOST),
Schuirmann 1987; step-down correction, Holm 1979; median of censored times, Kaplan & Meier 1958.
Student's distribution is `scipy.special`'s. `scipy.stats` and statsmodels, which the tests hold
these functions to, take longer to import than the report of some runs takes to compute.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

LEVEL = 0.95
MOST_SEEDS = 1_000
FINEST = 100_000
"""Test examples up to which a metric's steps are looked for."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of paired times, candidate over baseline."""

    n: int  # pairs
    value: float  # geometric mean of the pairs' ratios
    low: float | None = None  # 95% interval; None for one pair and for pairs without any spread
    high: float | None = None
    p: float | None = None  # two-sided, of a mean log ratio of 0; 1 without spread, None if n = 1
    log_sd: float | None = None  # standard deviation of the log ratios


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """A two-sided equivalence test of paired values, candidate less baseline."""

    n: int  # pairs
    difference: float  # mean
    distance: float  # mean absolute difference
    margin: float  # differences smaller than this do not matter
    relative: float | None = None  # the margin's share of the baseline's mean, if chosen so
    low: float | None = None  # 90% interval: within the margin where both tests reject at 5%
    high: float | None = None
    p: float | None = None  # the larger of the two one-sided p values; None for a single pair
    sd: float | None = None  # standard deviation of the differences
    p_different: float | None = None  # of the two-sided paired t test, that the mean is 0
    resolution: float | None = None  # smallest step of the metric; None if it is not known


def half_width(error: Any, degrees: Any, level: float = LEVEL) -> Any:
    """Return half the width of an interval from standard errors; NaN without degrees of freedom."""
    return special.stdtrit(degrees, (1 + level) / 2) * error


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean with all that Student's intervals and tests rest on."""

    value: np.ndarray  # mean ``(…)`` and its standard error ``(…)``
    error: np.ndarray
    degrees: int  # of freedom

    @classmethod
    def of(cls, values: np.ndarray, floor: float = 0.0) -> "Mean":
        """Return the mean of ``(…, n)``, taking its standard deviation to be `floor` at least."""
        n = values.shape[-1]
        spread = np.maximum(values.std(axis=-1, ddof=1), floor)
        return cls(value=values.mean(axis=-1), error=spread / math.sqrt(n), degrees=n - 1)

    def interval(self, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """Return the interval ``(…)``, ``(…)``."""
        half = half_width(self.error, self.degrees, level)
        return self.value - half, self.value + half

    def p_below(self, null: float) -> np.ndarray:
        """Return the one-sided p value ``(…)`` against a true mean of at least `null`."""
        return np.asarray(special.stdtr(self.degrees, (self.value - null) / self.error))

    def p_above(self, null: float) -> np.ndarray:
        """Return the one-sided p value ``(…)`` against a true mean of at most `null`."""
        return np.asarray(special.stdtr(self.degrees, (null - self.value) / self.error))

    def p(self) -> np.ndarray:
        """Return the two-sided p value ``(…)`` against a true mean of 0."""
        return 2 * np.minimum(self.p_above(0.0), self.p_below(0.0))


def ratio(baseline: np.ndarray, candidate: np.ndarray) -> Ratio:
    """Return the ratio of paired positive times ``(n,)``.

    The interval holds 1 exactly where the test does not reject at 5%.
    """
    logs = np.log(candidate) - np.log(baseline)
    n, value = len(logs), float(np.exp(logs.mean()))
    if n == 1:
        return Ratio(n=n, value=value)
    sd = float(logs.std(ddof=1))
    if sd < 1e-12:  # no clock gives that: such a sample does not show how much ratios vary
        return Ratio(n=n, value=value, p=1.0, log_sd=sd)
    mean = Mean.of(logs)
    low, high = map(float, np.exp(mean.interval()))
    return Ratio(n=n, value=value, low=low, high=high, p=float(mean.p()), log_sd=sd)


def equivalence(
    baseline: np.ndarray, candidate: np.ndarray, margin: float, resolution: float | None = None
) -> Equivalence:
    """Test paired values ``(n,)`` for equivalence within ``±margin`` (TOST), and for difference.

    A metric that is a share of so many test examples moves in steps. Few pairs can agree to the
    step by chance, and then their spread says nothing: the deviation is taken to be at least one
    step of `resolution`. Where that is not known, pairs without any spread decide nothing.
    """
    differences = candidate - baseline
    n, value = len(differences), float(differences.mean())
    known: dict[str, Any] = {"n": n, "difference": value, "margin": margin}
    known |= {"distance": float(np.abs(differences).mean()), "resolution": resolution}
    if n == 1:
        return Equivalence(**known)
    sd = float(differences.std(ddof=1))
    if max(sd, resolution or 0.0) < 1e-15:
        return Equivalence(**known, low=value, high=value, p=1.0, sd=sd, p_different=1.0)
    mean = Mean.of(differences, resolution or 0.0)
    low, high = map(float, mean.interval(0.90))
    p = float(max(mean.p_above(-margin), mean.p_below(margin)))
    return Equivalence(**known, low=low, high=high, p=p, sd=sd, p_different=float(mean.p()))


def resolution(values: np.ndarray) -> float | None:
    """Return 1/N of the smallest N for which all `values` are whole multiples of 1/N.

    That is the step of a share of test examples, or a whole multiple of it if few values are
    known: then equivalence is claimed less often than it could be, not more. None if there is no
    such N up to `FINEST`.
    """
    values = np.unique(np.asarray(values, dtype=float))
    if not len(values) or not np.isfinite(values).all():
        return None
    left = np.arange(1, FINEST + 1)
    for value in values:
        steps = value * left
        # Shares that were computed in float32 are off by 1e-7 or so.
        left = left[np.abs(steps - np.round(steps)) <= 1e-9 + 2e-7 * left]
        if not len(left):
            return None
    return 1 / int(left[0])


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p values over those that are not None."""
    known = np.array([value for value in p if value is not None])
    order = np.argsort(known, kind="stable")
    adjusted = np.empty_like(known)
    steps = np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1))
    adjusted[order] = np.minimum(steps, 1.0)
    left = iter(adjusted)
    return [None if value is None else float(next(left)) for value in p]


def seeds_needed(log_sd: float, precision: float) -> int | None:
    """Return how many pairs make the 95% interval of a ratio as narrow as ``±precision``.

    The smallest n with t(n - 1) x sd / sqrt(n) <= log(1 + precision), taking the spread that was
    measured for the true one; None if that is more than `MOST_SEEDS`.
    """
    n = np.arange(2, MOST_SEEDS + 1)
    half = half_width(log_sd / np.sqrt(n), n - 1)
    enough = n[half <= math.log1p(precision)]
    return int(enough[0]) if len(enough) else None


def censored_median(times: np.ndarray, reached: np.ndarray) -> float | None:
    """Return the Kaplan-Meier median of times ``(n,)``; None if half of them never got there.

    Where `reached` is False, the time is only a lower bound.
    """
    at, arrived = np.unique(times[reached], return_counts=True)
    under_way = len(times) - np.searchsorted(np.sort(times), at)
    survival = np.cumprod(1 - arrived / under_way)
    below = at[survival <= 0.5 + 1e-9]  # products of shares round
    return float(below[0]) if len(below) else None
