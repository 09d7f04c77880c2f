"""The five aggregates of step rewards, by numbers worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.choices import Aggregation
from orchestrator.rewards.aggregation import aggregate

STEPS = (0.5, 0.25, 0.8)


@pytest.mark.parametrize(
    ("how", "expected"),
    [("last", 0.8), ("min", 0.25), ("mean", 1.55 / 3), ("sum", 1.55), ("product", 0.1)],
)
def test_the_aggregate_of_three_probabilities(how: Aggregation, expected: float) -> None:
    assert aggregate(STEPS, how) == pytest.approx(expected, abs=1e-12)
    assert aggregate([0.3], how) == pytest.approx(0.3, abs=1e-12)


def test_a_product_of_unbounded_rewards_is_that_of_their_sigmoids() -> None:
    """sigma(0) = 1/2, sigma(ln 3) = 3/4, sigma(-ln 4) = 1/5."""
    values = (0.0, math.log(3), -math.log(4))
    assert aggregate(values, "product", probabilities=False) == pytest.approx(0.075, abs=1e-12)
    for how in ("last", "min", "mean", "sum"):
        assert aggregate(values, how, probabilities=False) == aggregate(values, how)


def test_the_sigmoid_of_a_far_reward_does_not_overflow() -> None:
    assert aggregate([-2000.0, 2000.0], "product", probabilities=False) == 0.0
    assert aggregate([2000.0], "product", probabilities=False) == 1.0


@pytest.mark.parametrize("how", ["min", "mean", "sum", "product"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_reward_that_is_nan_is_seen_wherever_it_stands(how: Aggregation, place: int) -> None:
    values = [0.5, 0.5, 0.5]
    values[place] = math.nan
    assert math.isnan(aggregate(values, how))


def test_no_steps_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no step rewards"):
        aggregate([], "min")
    with pytest.raises(ValueError, match="'max': must be last"):
        aggregate([0.1], "max")  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_aggregates_of_probabilities_are_ordered(values: list[float]) -> None:
    product, least = aggregate(values, "product"), aggregate(values, "min")
    assert product <= least + 1e-12
    assert least - 1e-12 <= aggregate(values, "mean") <= aggregate(values, "sum") + 1e-12
