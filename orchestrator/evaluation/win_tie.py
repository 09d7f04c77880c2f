"""Compute wins and ties of the win-tie rate (section 5.1, table 1) against the base policy.

The grades may come from any judge; this module only compares the two responses to a prompt.
"""

import numpy as np
from numpy.typing import ArrayLike

from orchestrator.evaluation.resampling import Floats, as_finite_array


def outcomes(grades: ArrayLike, base_grades: ArrayLike) -> tuple[Floats, Floats]:
    """Return the wins (N,) and the ties (N,) of a method against the base policy, each 0 or 1.

    A row is a win if its grade is higher than the base policy's for the same prompt, a tie if the
    two are equal. The mean of their sum is the win-tie rate.

    Raises:
        ValueError: the two differ in shape, or a grade is NaN or infinite.
    """
    values, base = as_finite_array(grades, "grades"), as_finite_array(base_grades, "base_grades")
    if values.shape != base.shape or values.ndim != 1:
        raise ValueError(f"grades need one shape (N,), got {values.shape} and {base.shape}")
    return (values > base).astype(np.float64), (values == base).astype(np.float64)
