"""Compute intervals and paired tests: Wilson, grouped bootstrap, sign-flip permutation.

The paper reports no intervals (section 5.1 lists its metrics). Rows of one prompt are not
independent, so resampling and sign flips apply to prompts (groups). The module works on arrays
only.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from orchestrator.evaluation.resampling import (
    Floats,
    Groups,
    as_finite_array,
    bootstrap,
    column_means,
    group_contributions,
    group_totals,
    sign_flip_p_value,
)
from orchestrator.randomness import Key, generator

LEVEL = 0.95  # design: every figure has a 95 % interval
SIGNIFICANCE = 0.05  # significance level of the tests, equivalent to intervals of LEVEL
BOOTSTRAP_SAMPLES = 2000  # 50 draws are below the 2.5 % quantile
SIGN_FLIPS = 10_000  # Monte-Carlo error of a p-value near 0.05 is then about 0.002


Sign = Literal["+", "-", ""]


@dataclass(frozen=True)
class Resampling:
    """Settings of bootstrap and permutation: the run's seed, and the number of samples."""

    seed: int
    samples: int = BOOTSTRAP_SAMPLES


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, low <= value <= high. ``count`` is the number of rows averaged.

    A bootstrap interval has width 0 if all rows are equal or belong to one group. The width then
    says nothing about the uncertainty; with one group, neither does ``count``.
    """

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class PairedTest:
    """Mean of first - second over the same rows, its bootstrap interval, two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float
    count: int

    @property
    def sign(self) -> Sign:
        """``+`` or ``-`` if the difference is significant by interval and p-value, else empty."""
        return sign_of(self.low, self.high, self.p_value)


def sign_of(low: float, high: float, p_value: float) -> Sign:
    """Return ``+`` or ``-`` if an interval excludes zero and the p-value is small, else "".

    With few prompts a bootstrap interval is too narrow, and only the permutation test is exact.
    With many prompts the two disagree only near the threshold. A difference is significant only if
    both show it.
    """
    if low <= 0 <= high or not p_value <= SIGNIFICANCE:
        return ""
    return "+" if low > 0 else "-"


def mean_interval(
    values: ArrayLike,
    *key: Key,
    groups: Groups | None = None,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
) -> Interval:
    """Return the mean of ``values`` (N,) with its percentile interval; ``key`` seeds the bootstrap.

    ``groups`` (N,) are the rows' prompt ids: whole groups are resampled and the mean is a ratio of
    sums, so each row weighs the same. With groups the order of rows does not change the draws.

    Raises:
        ValueError: no row, a NaN or infinite value, or shapes that do not fit.
    """
    column = as_finite_array(values, "values")
    if column.ndim != 1:
        raise ValueError(f"values must have shape (N,), got {column.shape}; see grid_intervals")
    _, mean = grid_intervals(
        column[:, None], None, *key, groups=groups, level=level, samples=samples
    )
    if mean is None:
        raise ValueError("no row to average: values is empty")
    return mean


def rate_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean of N independent rows, each 0 or 1, with its Wilson score interval.

    For data with one row per prompt. Unlike that of a bootstrap interval, its width is not 0 for
    0 of 20.

    Raises:
        ValueError: no row, or a value that is neither 0 nor 1.
    """
    column = as_finite_array(values, "values")
    if column.ndim != 1 or not column.size or not np.isin(column, (0, 1)).all():
        raise ValueError("a rate needs values of shape (N,), N > 0, each 0 or 1")
    from scipy.stats import binomtest  # importing it takes a second, and `--help` does not need it

    test = binomtest(int(column.sum()), column.size)
    bounds = test.proportion_ci(level, method="wilson")
    value = float(column.mean())
    # At 0 and 1 rounding may move a bound slightly past the value.
    return Interval(
        value, min(float(bounds.low), value), max(float(bounds.high), value), column.size
    )


def grid_intervals(
    values: ArrayLike,
    counted: ArrayLike | None,
    *key: Key,
    groups: Groups | None = None,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
) -> tuple[tuple[Interval | None, ...], Interval | None]:
    """Return the mean of each of G columns over its counted rows, and the mean of these G means.

    ``values`` (N, G) float or bool, ``counted`` (N, G) bool (None: all), ``groups`` (N,). All
    columns share the resampled groups. A column without counted rows is None, and the mean of
    columns excludes it, in the data and in each resample.

    Raises:
        ValueError: a NaN or infinite value, or shapes that do not fit.
    """
    _check_resampling(level, samples)
    totals = group_totals(as_finite_array(values, "values"), counted, groups)
    columns = totals.sums.shape[1]
    if not totals.rows[-1]:
        return (None,) * columns, None
    means = column_means(totals.sums.sum(0)[None], totals.counts.sum(0)[None])[0]
    draws = bootstrap(totals, generator(*key, "bootstrap"), samples)
    intervals = tuple(
        _interval(means[g], draws[:, g], totals.rows[g], level) if totals.rows[g] else None
        for g in range(columns + 1)
    )
    return intervals[:-1], intervals[-1]


def paired_test(
    first: ArrayLike,
    second: ArrayLike,
    *key: Key,
    groups: Groups | None = None,
    counted: ArrayLike | None = None,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
    flips: int = SIGN_FLIPS,
) -> PairedTest:
    """Compare two methods over the same rows: the mean of ``first`` - ``second``.

    Both are (N,), or (N, G) for a mean of column means over the rows ``counted`` (N, G). The
    interval resamples groups. The p-value is a sign-flip permutation test: under the null
    hypothesis, a group's sum of differences is equally likely with the other sign. The p-value is
    (1 + flips with a sum at least as far from 0) / (1 + flips), so never 0. If all differences are
    zero, the difference is 0 and p is 1.

    Raises:
        ValueError: no row, a NaN or infinite value, or shapes that do not fit.
    """
    _check_resampling(level, samples, flips)
    one, other = as_finite_array(first, "first"), as_finite_array(second, "second")
    if one.shape != other.shape:
        raise ValueError(f"paired values need one shape, got {one.shape} and {other.shape}")
    grid = one - other if one.ndim == 2 else (one - other)[:, None]
    totals = group_totals(grid, counted, groups)
    if not totals.rows[-1]:
        raise ValueError("no row to compare: `first` is empty, or `counted` is False everywhere")
    difference = column_means(totals.sums.sum(0)[None], totals.counts.sum(0)[None])[0, -1]
    draws = bootstrap(totals, generator(*key, "bootstrap"), samples)[:, -1]
    interval = _interval(difference, draws, totals.rows[-1], level)
    p_value = sign_flip_p_value(group_contributions(totals), generator(*key, "sign flip"), flips)
    return PairedTest(interval.value, interval.low, interval.high, p_value, interval.count)


def _check_resampling(level: float, *draws: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if min(draws) < 1:
        raise ValueError(f"samples and flips must be at least 1, got {min(draws)}")


def _interval(value: float, draws: Floats, count: int, level: float) -> Interval:
    counting = draws[~np.isnan(draws)]  # without the resamples in which no row counts
    low, high = value, value
    if counting.size:
        low, high = np.quantile(counting, [(1 - level) / 2, (1 + level) / 2])
    # Rounding of equal values, or a very skewed sample, may leave the value outside the interval.
    return Interval(float(value), float(min(low, value)), float(max(high, value)), int(count))
