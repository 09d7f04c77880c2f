"""Find the n at which best-of-n costs as much as another method, to compare at equal budget.

Costs may be of any kind, such as FLOPs or seconds.
"""

from collections.abc import Sequence


def largest_within(costs: Sequence[float], budget: float) -> int:
    """Return the index of the largest size whose cost does not exceed the budget.

    ``costs`` are those of ascending sizes. If the first one already exceeds the budget, the index
    is 0; the caller must report that it costs more.

    Raises:
        ValueError: ``costs`` is empty.
    """
    if not costs:
        raise ValueError("no size to choose from")
    return max((i for i, cost in enumerate(costs) if cost <= budget), default=0)
