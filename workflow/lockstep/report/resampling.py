"""The studentized bootstrap of a mean: what its t statistic does when the sample is drawn again.

Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 12.5. Of the bootstraps
it is the one that keeps its coverage at few tens of values: at 20 of them, the percentile
interval of a normal mean covers 93%. The draws are the same for every sample of a size (fixed
random state), so that equal records give equal bytes; their counts are kept, so that a mean of each
draw is a product of matrices.
"""

import functools
from dataclasses import dataclass

import numpy as np

DRAWS = 19_999
"""One less than a round number, so that 5% of the draws and one is a whole number of them."""

STATE = 0
AT_ONCE = 2_000_000
"""Counts that are in memory as floats at a time."""


@dataclass(frozen=True, kw_only=True)
class Studentized:
    """The distribution of the t statistic, as draws from the sample itself give it.

    Has of scipy's distributions what an interval and a test need. A share counts the sample itself
    as one draw more (Davison and Hinkley 1997, section 4.2), and `ppf` is its inverse: the interval
    holds a value exactly where the test does not reject it.

    Attributes:
        draws: t statistics in ascending order, ``(…, DRAWS)``.
    """

    draws: np.ndarray

    def ppf(self, share: float) -> np.ndarray:
        """Return the quantile ``(…)``, the farther one of two neighbours."""
        count = self.draws.shape[-1]
        rank = round(min(share, 1 - share) * (count + 1)) - 1
        return self.draws[..., rank - 1 if share < 0.5 else count - rank]

    def cdf(self, t: np.ndarray) -> np.ndarray:
        """Return the share of draws up to `t` ``(…)``."""
        return self._share(self.draws <= np.asarray(t)[..., None])

    def sf(self, t: np.ndarray) -> np.ndarray:
        """Return the share of draws from `t` ``(…)`` on."""
        return self._share(self.draws >= np.asarray(t)[..., None])

    def _share(self, beyond: np.ndarray) -> np.ndarray:
        return (1 + beyond.sum(axis=-1)) / (beyond.shape[-1] + 1)


def studentized(values: np.ndarray, floor: float = 0.0) -> Studentized:
    """Return the distribution for the mean of ``(…, n)``.

    Args:
        floor: least standard deviation, of the sample and of a draw.
    """
    n = values.shape[-1]
    centred = (values - values.mean(axis=-1, keepdims=True)).reshape(-1, n)
    size = np.abs(centred).max(axis=-1, keepdims=True)
    size[size == 0] = 1.0
    centred = centred / size  # so that float32 is enough
    powers = np.concatenate([centred, centred**2]).T.astype(np.float32)
    counts, step = _counts(n, DRAWS), max(1, AT_ONCE // n)
    sums = np.concatenate(
        [counts[k : k + step].astype(np.float32) @ powers for k in range(0, DRAWS, step)]
    ).T.astype(np.float64)
    mean, square = sums[: len(centred)] / n, sums[len(centred) :] / n
    spread = np.sqrt(np.maximum(square - mean**2, 0.0) * n / (n - 1))
    error = np.maximum(spread, floor / size) / np.sqrt(n)
    # A draw of one value n times has no spread: it is as far off as can be.
    found = np.where(mean > 0, np.inf, np.where(mean < 0, -np.inf, 0.0))
    np.divide(mean, error, out=found, where=error > 0)
    found.sort(axis=-1)
    return Studentized(draws=found.reshape(*values.shape[:-1], DRAWS))


@functools.lru_cache(maxsize=4)
def _counts(n: int, draws: int) -> np.ndarray:
    """Return how often each of n values is in each draw, uint8 ``(draws, n)``."""
    generator = np.random.default_rng(STATE)
    parts, step = [], max(1, AT_ONCE // n)
    for begin in range(0, draws, step):
        rows = min(step, draws - begin)
        chosen = generator.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
        counted = np.bincount(chosen.ravel(), minlength=rows * n)
        parts.append(counted.reshape(rows, n).astype(np.uint8))
    return np.concatenate(parts)
