"""Resample groups of rows: bootstrap for intervals, sign-flip test for p-values.

The paper reports neither intervals nor p-values. A group is the rows of a prompt, which are not
independent. Both methods use sums and counts per group, so that 2,000 resamples are two matrix
products. The module does not depend on metrics.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Groups = Sequence[object] | NDArray[np.generic]

DRAWS_AT_ONCE = 2**21  # random numbers in memory at once: 16 MiB as int64
ROUNDING = 1e-12  # relative tolerance for comparing sums
POSITIONS_SHOWN = 20


@dataclass(frozen=True, eq=False)
class GroupTotals:
    """Sums (P, G) and counts (P, G) of P groups, and numbers of counted rows (G + 1,).

    The last of ``rows`` is the number of rows that count in any column.
    """

    sums: Floats
    counts: Floats
    rows: NDArray[np.int64]


def as_finite_array(values: ArrayLike, name: str) -> Floats:
    """Return the values as float64.

    Raises:
        ValueError: a value is NaN or infinite; the message names the positions.
    """
    array = np.asarray(values, dtype=np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        shown = (bad[:, 0] if array.ndim == 1 else bad)[:POSITIONS_SHOWN].tolist()
        raise ValueError(f"{name} must be finite; NaN or infinite at {len(bad)} positions: {shown}")
    return array


def group_totals(grid: Floats, counted: ArrayLike | None, groups: Groups | None) -> GroupTotals:
    """Return the totals of ``grid`` (N, G) over the ``counted`` (N, G), by ``groups`` (N,).

    ``counted`` None: all rows count. ``groups`` None: each row is a group. Groups are sorted by id.

    Raises:
        ValueError: shapes do not fit.
    """
    if grid.ndim != 2:
        raise ValueError(f"values must have shape (N, G), got {grid.shape}")
    mask = np.ones(grid.shape, bool) if counted is None else np.asarray(counted, dtype=bool)
    if mask.shape != grid.shape:
        raise ValueError(f"counted has shape {mask.shape}, values have {grid.shape}")
    rows = np.append(mask.sum(axis=0), mask.any(axis=1).sum())
    if groups is None:
        return GroupTotals(np.where(mask, grid, 0.0), mask.astype(np.float64), rows)
    if len(groups) != len(grid):
        raise ValueError(f"{len(groups)} group ids for {len(grid)} rows")
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.zeros((2, len(names), grid.shape[1]))
    np.add.at(sums, inverse, np.where(mask, grid, 0.0))
    np.add.at(counts, inverse, mask)
    return GroupTotals(sums, counts, rows)


def column_means(sums: Floats, counts: Floats) -> Floats:
    """Return sums / counts (S, G), NaN where the count is 0, and their mean as the last column."""
    present = counts > 0
    ratios = np.divide(sums, counts, out=np.zeros_like(sums), where=present)
    columns = present.sum(axis=1)
    total = ratios.sum(axis=1)
    mean = np.divide(total, columns, out=np.full_like(total, np.nan), where=columns > 0)
    return np.column_stack([np.where(present, ratios, np.nan), mean])


def bootstrap(totals: GroupTotals, rng: np.random.Generator, samples: int) -> Floats:
    """Return the column means (samples, G + 1) of resampled groups."""
    size = len(totals.sums)
    draws = []
    for block in _blocks(samples, size):
        chosen = rng.integers(size, size=(block, size))
        chosen += np.arange(block)[:, None] * size
        times = np.bincount(chosen.ravel(), minlength=block * size).reshape(block, size)
        weights = times.astype(np.float64)  # (block, P): how often each group was drawn
        draws.append(column_means(weights @ totals.sums, weights @ totals.counts))
    return np.concatenate(draws)


def group_contributions(totals: GroupTotals) -> Floats:
    """Return the contributions of groups (P,); their sum is the mean of column means."""
    counts = totals.counts.sum(axis=0)
    present = counts > 0
    parts = totals.sums[:, present] / counts[present]  # (P, columns where a row counts)
    return np.asarray(parts.mean(axis=1), dtype=np.float64)


def sign_flip_p_value(parts: Floats, rng: np.random.Generator, flips: int) -> float:
    """Return the two-sided p-value of the sum of ``parts`` (P,) under random sign flips.

    It is (1 + flips with a sum at least as far from 0) / (1 + flips), so never 0; 1 if all parts
    are 0.
    """
    nonzero = parts[parts != 0]  # a zero has the same sum with either sign
    if not nonzero.size:
        return 1.0
    reached = abs(nonzero.sum()) - ROUNDING * np.abs(nonzero).sum()
    hits = 0
    for block in _blocks(flips, nonzero.size):
        signs = 2.0 * rng.integers(2, size=(block, nonzero.size), dtype=np.int8) - 1.0
        hits += int((np.abs(signs @ nonzero) >= reached).sum())
    return (1 + hits) / (1 + flips)


def _blocks(total: int, width: int) -> Iterator[int]:
    """Yield the sizes of the blocks in which ``total`` rows of ``width`` draws are made."""
    step = max(1, DRAWS_AT_ONCE // width)
    for start in range(0, total, step):
        yield min(step, total - start)
