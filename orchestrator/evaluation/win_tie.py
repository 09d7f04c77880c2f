"""Win-tie rate (section 5.1, table 1): how often a response is no worse than the base policy's.

The grades may come from any judge; this module only compares the two responses to a prompt.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from orchestrator.evaluation.resampling import Floats, Groups, finite
from orchestrator.evaluation.statistics import BOOTSTRAP_SAMPLES, LEVEL, Interval, mean_interval
from orchestrator.randomness import Key


@dataclass(frozen=True)
class WinTie:
    """Shares of prompts. ``win_tie`` = ``win`` + ``tie``."""

    win_tie: Interval
    win: Interval
    tie: Interval


def outcomes(grades: ArrayLike, base_grades: ArrayLike) -> tuple[Floats, Floats]:
    """Return wins (N,) and ties (N,) as 0 or 1 for each row, for paired tests between methods.

    Raises:
        ValueError: the two differ in shape, or a grade is NaN or infinite.
    """
    values, base = finite(grades, "grades"), finite(base_grades, "base_grades")
    if values.shape != base.shape or values.ndim != 1:
        raise ValueError(f"grades need one shape (N,), got {values.shape} and {base.shape}")
    return (values > base).astype(np.float64), (values == base).astype(np.float64)


def win_tie(
    grades: ArrayLike,
    base_grades: ArrayLike,
    *key: Key,
    groups: Groups | None = None,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
) -> WinTie:
    """Return the win-tie rate of ``grades`` (N,) against ``base_grades`` (N,) of the same prompts.

    A row is a win where its grade is higher, a tie where it is equal. ``groups`` (N,) are prompt
    ids where a prompt has several rows.

    Raises:
        ValueError: no row, a NaN or infinite grade, or shapes that do not fit.
    """
    wins, ties = outcomes(grades, base_grades)
    rates = [
        mean_interval(values, *key, groups=groups, level=level, samples=samples)
        for values in (wins + ties, wins, ties)
    ]
    return WinTie(*rates)
