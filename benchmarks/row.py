"""One measured figure: its median, its spread, the limit asked for, and whether that is met."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Values = Sequence[float] | np.ndarray
LIMITS = {"<=": operator.le, ">=": operator.ge}
SIGNS = {"<=": "≤", ">=": "≥"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table.

    Attributes:
        what: is measured.
        unit: such as ``ms``, or ``x`` for a ratio.
        low, high: bounds of the spread.
        spread: what the bounds are: ``IQR`` or ``95%`` (interval of the median); `n/a` for one.
        samples: how many measurements the median is of.
        limit: such as ``(">=", 50.0)``, or None for a figure that is told for information.
    """

    what: str
    unit: str
    median: float
    low: float
    high: float
    spread: str
    samples: int
    limit: tuple[str, float] | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the limit; None without one."""
        if self.limit is None:
            return None
        sign, bound = self.limit
        return bool(LIMITS[sign](self.median, bound))


def times(what: str, unit: str, values: Values, limit: tuple[str, float] | None = None) -> Row:
    """Return the median and the interquartile range of measurements."""
    low, high = np.quantile(values, [0.25, 0.75])
    return _row(what, unit, values, low, high, "IQR" if len(values) > 1 else "n/a", limit)


def extremes(what: str, unit: str, values: Values, limit: tuple[str, float] | None = None) -> Row:
    """Return the median and the range of measurements."""
    return _row(what, unit, values, min(values), max(values), "range", limit)


def ratio(
    what: str,
    above: Values,
    below: Values,
    limit: tuple[str, float] | None = None,
) -> Row:
    """Return the median of the ratios of measurements taken in turns, with its 95% interval.

    The interval is that of order statistics (a binomial's quantiles), which assumes nothing about
    the distribution; with fewer than six pairs there is none, and the range stands in its place.
    """
    ratios = np.sort(np.asarray(above, float) / np.asarray(below, float))
    count = len(ratios)
    first = int(stats.binom.ppf(0.025, count, 0.5)) - 1
    enough = count >= 6
    low, high = (ratios[first], ratios[count - 1 - first]) if enough else (ratios[0], ratios[-1])
    return _row(what, "x", ratios, low, high, "95%" if enough else "range", limit)


def _row(
    what: str,
    unit: str,
    values: Values,
    low: float,
    high: float,
    spread: str,
    limit: tuple[str, float] | None,
) -> Row:
    return Row(
        what=what,
        unit=unit,
        median=float(np.median(values)),
        low=float(low),
        high=float(high),
        spread=spread,
        samples=len(values),
        limit=limit,
    )
