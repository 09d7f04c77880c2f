"""Which n of best-of-n a method is compared with."""

import pytest

from orchestrator.evaluation.budget import largest_within


@pytest.mark.parametrize(
    ("budget", "index"),
    [(9.99, 0), (10.0, 0), (19.9, 0), (20.0, 1), (35.0, 2), (80.0, 3), (1e9, 3)],
)
def test_the_largest_size_that_does_not_exceed_the_budget(budget: float, index: int) -> None:
    """Below the first there is nothing cheaper than it; above the last nothing dearer."""
    assert largest_within([10.0, 20.0, 30.0, 80.0], budget) == index


def test_without_a_size_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="no size"):
        largest_within([], 1.0)
