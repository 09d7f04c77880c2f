"""Reference weights of section 4.2 against values worked out by hand, at ends and in between."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rewards.weights import entropy, normalized, reference_weights, weights_of

gaps_of_reference = st.lists(
    st.floats(-60, 60, allow_nan=False, allow_subnormal=False), min_size=1, max_size=30
)


def test_at_a_gap_just_above_zero_the_weight_is_one_over_the_entropy_of_a_coin() -> None:
    assert reference_weights([1e-9]) == pytest.approx([1 / math.log(2)], rel=1e-9)


def test_by_hand_at_a_gap_where_p_is_three_quarters() -> None:
    h = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert entropy([math.log(3)])[0] == pytest.approx(h, rel=1e-12)
    assert reference_weights([math.log(3)])[0] == pytest.approx(1 / h, rel=1e-12)


def test_a_gap_of_ten_weighs_about_two_thousand() -> None:
    assert reference_weights([10.0])[0] == pytest.approx(2002, rel=0.01)


def test_a_cap_of_ten_bites_at_a_gap_of_3_87() -> None:
    below, above = reference_weights([3.86, 3.88], maximum=10.0)
    assert below < 10.0 and above == 10.0
    assert below == reference_weights([3.86])[0]


def test_disagreement_and_ties_drop_the_pair() -> None:
    assert reference_weights([0.0, -0.0, -1e-12, -3.0, -50.0]).tolist() == [0.0] * 5
    assert reference_weights([-50.0], maximum=10.0).tolist() == [0.0]


def test_a_gap_of_fifty_keeps_its_digits() -> None:
    """1 - p is 0 in float64 there; H is not: about (|d| + 1) exp(-|d|)."""
    assert 1 - 1 / (1 + math.exp(-50.0)) == 0.0
    expected = math.exp(50.0) / 51.0
    assert reference_weights([50.0])[0] == pytest.approx(expected, rel=1e-12)


def test_an_entropy_that_is_no_float_any_more_gives_infinity_unless_capped() -> None:
    assert reference_weights([800.0])[0] == math.inf
    assert reference_weights([800.0], maximum=10.0)[0] == 10.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gaps_that_are_not_finite_are_refused_with_their_places(bad: float) -> None:
    with pytest.raises(ValueError, match=r"not finite at \[2\]"):
        reference_weights([1.0, -1.0, bad, 2.0])


def test_normalized_weights_have_mean_one_over_the_kept_pairs() -> None:
    scaled = normalized([0.0, 2.0, 6.0, 0.0])
    assert scaled.tolist() == [0.0, 0.5, 1.5, 0.0]
    assert normalized([0.0, 0.0]).tolist() == [0.0, 0.0]
    assert normalized([]).size == 0


@pytest.mark.parametrize("weights", [[1.5, np.inf], [1.7e308, 1.7e308]])
def test_weights_without_a_finite_mean_are_not_normalized(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"the largest .* is not finite; set weight\.max"):
        normalized(weights)


@given(gaps_of_reference)
def test_weights_rise_with_the_gap_and_never_fall_below_the_least(gaps: list[float]) -> None:
    weights = reference_weights(sorted(gaps))
    assert (weights[1:] >= weights[:-1] * (1 - 1e-12)).all()  # rounding apart
    kept = weights[weights > 0]
    assert (kept >= 1 / math.log(2) * (1 - 1e-12)).all()
    assert ((weights > 0) == (np.array(sorted(gaps)) > 0)).all()


@given(gaps_of_reference, st.randoms(use_true_random=False), st.floats(2, 100))
def test_a_weight_depends_on_its_own_gap_alone(gaps: list[float], random, cap: float) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(gaps)))
    random.shuffle(order)
    weights = reference_weights(gaps, cap)
    shuffled = reference_weights([gaps[i] for i in order], cap)
    assert shuffled.tolist() == [weights[i] for i in order]
    assert weights.tolist() == [reference_weights(gap, cap).item() for gap in gaps]


GAPS = [2.0, -1.0, 0.0, 0.5, 3.0, -4.0, 1.0]


def test_each_control_leaves_out_one_part_of_the_reference() -> None:
    whole = reference_weights(GAPS, 10.0)
    assert weights_of("reference", GAPS, 10.0).tolist() == whole.tolist()
    assert weights_of("none", GAPS, 10.0).tolist() == [1] * 7
    assert weights_of("mask", GAPS, 10.0).tolist() == [1, 0, 0, 1, 1, 0, 1]
    entropies = np.minimum(1 / entropy(GAPS), 10.0)
    assert weights_of("entropy", GAPS, 10.0).tolist() == entropies.tolist()
    assert (entropies[[0, 3, 4, 6]] == whole[[0, 3, 4, 6]]).all() and entropies.min() > 1.4


@given(gaps_of_reference, st.integers(0, 9))
def test_shuffled_weights_are_the_same_ones_at_the_same_places(
    gaps: list[float], seed: int
) -> None:
    whole, shuffled = reference_weights(gaps, 10.0), weights_of("shuffled", gaps, 10.0, seed)
    assert sorted(shuffled) == sorted(whole)
    assert ((shuffled > 0) == (whole > 0)).all()
    assert shuffled.tolist() == weights_of("shuffled", gaps, 10.0, seed).tolist()


def test_shuffling_moves_weights_and_the_key_decides_where() -> None:
    gaps = np.linspace(0.1, 3.0, 50)
    first, second = (weights_of("shuffled", gaps, None, seed) for seed in (0, 1))
    assert (first != reference_weights(gaps)).mean() > 0.8 and (first != second).mean() > 0.8
