"""Which size of best-of-n costs as much as another method: the comparison at equal budget.

Knows costs only, of whatever kind: FLOPs, seconds.
"""

from collections.abc import Sequence


def largest_within(costs: Sequence[float], budget: float) -> int:
    """The index of the largest size whose cost does not exceed the budget.

    ``costs`` are those of rising sizes. Where even the first exceeds the budget it is that one, 0:
    whoever compares has to say that it costs more.

    Raises:
        ValueError: there is no size.
    """
    if not costs:
        raise ValueError("no size to choose from")
    return max((i for i, cost in enumerate(costs) if cost <= budget), default=0)
