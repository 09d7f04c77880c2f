"""Aggregation of step rewards (design, section 2): last, min, mean, sum or product."""

import math
from collections.abc import Sequence

from orchestrator.choices import Aggregation


def aggregate(values: Sequence[float], how: Aggregation, *, probabilities: bool = True) -> float:
    """Return the aggregate of the rewards of a solution's steps.

    Args:
        values: one reward per step, in order, at least one.
        how: ``product`` multiplies probabilities.
        probabilities: whether the values are in [0, 1]; if not, ``product`` multiplies their
            sigmoids. The other aggregates use the values unchanged.

    Raises:
        ValueError: there are no values, or ``how`` is not one of the five.
    """
    if not values:
        raise ValueError("no step rewards to aggregate: at least one is needed")
    if how == "last":
        return values[-1]
    if how == "min":
        # Python's min keeps or drops a NaN depending on the order; a NaN reward must stay visible.
        return math.nan if any(map(math.isnan, values)) else min(values)
    if how == "mean":
        return math.fsum(values) / len(values)
    if how == "sum":
        return math.fsum(values)
    if how == "product":
        return math.prod(values if probabilities else map(_sigmoid, values))
    raise ValueError(f"aggregation {how!r}: must be last, min, mean, sum or product")


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    # exp(-value) would overflow below -709.
    return math.exp(value) / (1 + math.exp(value))
