"""Agreement rates of appendix B against tables small enough to count by hand."""

import numpy as np
import pytest
from support.present import present

from orchestrator.evaluation.agreement import (
    Curve,
    PairSet,
    PrefixRates,
    ar_rm_hp,
    ar_rm_sc,
    ar_sc_hp,
    compare_rates,
    reward_gap,
)
from orchestrator.evaluation.resampling import Floats
from orchestrator.evaluation.statistics import paired_test

# Four pairs, two lengths. Column 0: right, wrong, tie, equal prefixes (with float noise in r).
R_CHOSEN = np.array([[2.0, 2.0], [0.0, 3.0], [1.0, 1.0], [1.0 + 1e-7, 0.0]])
R_REJECTED = np.array([[1.0, 0.5], [1.0, 1.0], [1.0, 3.0], [1.0, 2.0]])
DISTINCT = np.array([[True, True], [True, True], [True, True], [False, True]])
# Column 0: h right, h wrong, h right, equal prefixes. Column 1: tie, right, wrong, right.
H_CHOSEN = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
H_REJECTED = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])


def values(curve: Curve | None) -> list[float]:
    curve = present(curve)
    return [present(interval).value for interval in (*curve.per_t, curve.mean)]


def mean(rates: PrefixRates, pair_set: PairSet) -> float:
    curve: Curve = getattr(rates, pair_set)
    return present(curve.mean).value


def test_ar_rm_sc_counts_ties_and_equal_prefixes_as_disagreement() -> None:
    rates = ar_rm_sc(R_CHOSEN, R_REJECTED, DISTINCT, 1)
    assert values(rates.strict) == pytest.approx([1 / 4, 2 / 4, 3 / 8])
    assert values(rates.distinct) == pytest.approx([1 / 3, 2 / 4, (1 / 3 + 2 / 4) / 2])
    assert rates.decided is None
    assert [present(interval).count for interval in rates.distinct.per_t] == [3, 4]


def test_ar_sc_hp_counts_where_the_judge_prefers_the_chosen_prefix() -> None:
    rates = ar_sc_hp(H_CHOSEN, H_REJECTED, DISTINCT, 1)
    assert values(rates.strict) == pytest.approx([2 / 4, 2 / 4, 2 / 4])
    assert values(rates.distinct) == pytest.approx([2 / 3, 2 / 4, (2 / 3 + 2 / 4) / 2])
    assert values(rates.decided) == pytest.approx([2 / 3, 2 / 3, 2 / 3])


def test_ar_rm_hp_agrees_where_both_order_the_prefixes_alike_in_either_direction() -> None:
    rates = ar_rm_hp(R_CHOSEN, R_REJECTED, H_CHOSEN, H_REJECTED, DISTINCT, 1)
    # Column 0: both right, both wrong, r ties, equal. Column 1: h ties, both right, both wrong, no.
    assert rates.values.tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]
    assert values(rates.strict) == pytest.approx([2 / 4, 2 / 4, 2 / 4])
    assert values(rates.distinct) == pytest.approx([2 / 3, 2 / 4, (2 / 3 + 2 / 4) / 2])
    assert values(rates.decided) == pytest.approx([2 / 3, 2 / 3, 2 / 3])


def test_two_ties_are_no_agreement() -> None:
    tie = np.zeros((3, 1))
    rates = ar_rm_hp(tie, tie, tie, tie, np.ones((3, 1), bool), 1)
    assert values(rates.strict) == [0, 0]
    assert present(rates.decided).mean is None


def test_the_judges_own_values_agree_with_it_wherever_it_decides() -> None:
    """Three of ten judged pairs tie: the paper's strict rate of a perfect scorer is 0.7."""
    h_chosen = np.array([[1.0], [1.0], [1.0], [1.0], [1.0], [0.0], [0.0], [0.5], [0.5], [0.5]])
    h_rejected = np.array([[0.0], [0.0], [0.0], [0.0], [0.0], [1.0], [1.0], [0.5], [0.5], [0.5]])
    rates = ar_rm_hp(h_chosen, h_rejected, h_chosen, h_rejected, np.ones((10, 1), bool), 1)
    assert values(rates.strict) == values(rates.distinct) == pytest.approx([0.7, 0.7])
    assert values(rates.decided) == [1.0, 1.0]
    assert [present(interval).count for interval in present(rates.decided).per_t] == [7]
    assert values(ar_sc_hp(h_chosen, h_rejected, np.ones((10, 1), bool), 1).decided) == (
        pytest.approx([5 / 7, 5 / 7])
    )


# One pair each: r, h, and (strict, decided) of AR_RM-HP and of AR_SC-HP; None: nothing counts.
TIES = [
    ("none", (1, 0), (1, 0), (1, 1), (1, 1)),
    ("of the scorer", (0, 0), (1, 0), (0, 0), (1, 1)),
    ("of the judge", (1, 0), (0, 0), (0, None), (0, None)),
    ("of both", (0, 0), (0, 0), (0, None), (0, None)),
    ("none, the judge prefers the rejected", (0, 1), (0, 1), (1, 1), (0, 0)),
    ("of the scorer, the judge prefers the rejected", (0, 0), (0, 1), (0, 0), (0, 0)),
]


@pytest.mark.parametrize(("tie", "r", "h", "rm_hp", "sc_hp"), TIES)
def test_a_tie_of_the_judge_is_left_out_and_one_of_the_scorer_disagrees(
    tie: str,
    r: tuple[int, int],
    h: tuple[int, int],
    rm_hp: tuple[int, int | None],
    sc_hp: tuple[int, int | None],
) -> None:
    r_c, r_r, h_c, h_r = (np.full((1, 1), float(score)) for score in (*r, *h))
    distinct = np.ones((1, 1), bool)
    for rates, (strict, decided) in (
        (ar_rm_hp(r_c, r_r, h_c, h_r, distinct, 1), rm_hp),
        (ar_sc_hp(h_c, h_r, distinct, 1), sc_hp),
    ):
        assert mean(rates, "strict") == mean(rates, "distinct") == strict
        found = present(rates.decided).mean
        assert (found and found.value) == decided


def test_scorers_are_compared_over_the_pairs_that_the_judge_decides() -> None:
    one = ar_rm_hp(R_CHOSEN, R_REJECTED, H_CHOSEN, H_REJECTED, DISTINCT, 1)
    other = ar_rm_hp(H_CHOSEN, H_REJECTED, H_CHOSEN, H_REJECTED, DISTINCT, 1)
    test = present(compare_rates(one, other, 1))
    assert one.comparison_set == "decided"
    assert test == compare_rates(one, other, 1, pair_set="decided")
    assert test.difference == pytest.approx(2 / 3 - 1)
    assert test.difference != present(compare_rates(one, other, 1, pair_set="distinct")).difference


def test_without_a_judge_scorers_are_compared_over_distinct_pairs() -> None:
    one = ar_rm_sc(R_CHOSEN, R_REJECTED, DISTINCT, 1)
    other = ar_rm_sc(H_CHOSEN, H_REJECTED, DISTINCT, 1)
    assert one.comparison_set == "distinct"
    assert compare_rates(one, other, 1) == compare_rates(one, other, 1, pair_set="distinct")


def test_a_judge_that_decides_nothing_leaves_nothing_to_compare() -> None:
    tie = np.zeros((3, 1))
    rates = ar_rm_hp(R_CHOSEN[:3, :1], R_REJECTED[:3, :1], tie, tie, np.ones((3, 1), bool), 1)
    assert compare_rates(rates, rates, 1) is None
    assert present(compare_rates(rates, rates, 1, pair_set="distinct")).difference == 0


def test_reward_gap_is_the_mean_absolute_difference_and_zero_for_equal_prefixes() -> None:
    rates = reward_gap(R_CHOSEN, R_REJECTED, DISTINCT, 1)
    assert rates.values[:, 0].tolist() == [1, 1, 0, 0]
    assert values(rates.strict) == pytest.approx([2 / 4, 7.5 / 4, (2 / 4 + 7.5 / 4) / 2])
    assert values(rates.distinct)[0] == pytest.approx(2 / 3)


def test_a_length_at_which_no_prefixes_differ_has_no_rate_and_no_part_in_the_mean() -> None:
    distinct = np.array([[False, True]] * 4)
    rates = ar_rm_sc(R_CHOSEN, R_REJECTED, distinct, 1)
    assert rates.distinct.per_t[0] is None
    assert mean(rates, "distinct") == present(rates.distinct.per_t[1]).value == 2 / 4
    assert present(rates.strict.per_t[0]).value == 0


def per_pair(rates: PrefixRates, pair_set: PairSet) -> Floats:
    """Return each pair's part (N,) in the mean over the grid: their mean is that rate exactly.

    Over all pairs ("strict") a part is the pair's mean over t. Where fewer than N pairs count at
    a t, those that count there weigh more in proportion, and a pair that never counts is 0.
    """
    mask = rates.counted[pair_set]
    pairs = mask.sum(axis=0)  # (G,)
    used = pairs > 0
    weights = mask[:, used] * (len(mask) / pairs[used])
    parts = (rates.values[:, used] * weights).sum(axis=1) / max(int(used.sum()), 1)
    return np.asarray(parts, dtype=np.float64)


@pytest.mark.parametrize("pair_set", ["strict", "distinct", "decided"])
def test_parts_of_the_pairs_average_to_the_mean_over_the_grid(pair_set: PairSet) -> None:
    rates = ar_rm_hp(R_CHOSEN, R_REJECTED, H_CHOSEN, H_REJECTED, DISTINCT, 1)
    assert per_pair(rates, pair_set).mean() == pytest.approx(mean(rates, pair_set))


def test_the_strict_part_of_a_pair_is_its_mean_over_the_grid() -> None:
    rates = ar_rm_sc(R_CHOSEN, R_REJECTED, DISTINCT, 1)
    assert per_pair(rates, "strict").tolist() == [1, 0.5, 0, 0]


@pytest.mark.parametrize(("pair_set", "by_hand"), [("strict", -1 / 8), ("distinct", -1 / 6)])
def test_the_difference_of_two_scorers_is_that_of_their_means(
    pair_set: PairSet, by_hand: float
) -> None:
    groups = ["a", "a", "b", "c"]
    one = ar_rm_sc(R_CHOSEN, R_REJECTED, DISTINCT, 1, groups=groups)
    other = ar_rm_sc(H_CHOSEN, H_REJECTED, DISTINCT, 1, groups=groups)
    test = present(compare_rates(one, other, 1, pair_set=pair_set))
    expected = mean(one, pair_set) - mean(other, pair_set)
    assert test.difference == pytest.approx(by_hand)
    assert test.difference == pytest.approx(expected)
    assert test.count == 4
    by_parts = paired_test(per_pair(one, pair_set), per_pair(other, pair_set), 1, groups=groups)
    assert (by_parts.difference, by_parts.p_value) == pytest.approx((expected, test.p_value))


def test_an_interval_over_prompts_is_wider_than_one_over_their_repeated_pairs() -> None:
    chosen = np.repeat(np.random.default_rng(0).normal(size=(40, 2)), 5, axis=0)
    prompts = np.repeat(np.arange(40), 5)
    arguments = (chosen, np.zeros_like(chosen), np.ones_like(chosen, dtype=bool), 1)
    by_prompt = present(ar_rm_sc(*arguments, groups=prompts).distinct.mean)
    by_pair = present(ar_rm_sc(*arguments).distinct.mean)
    assert by_prompt.high - by_prompt.low > 1.5 * (by_pair.high - by_pair.low)


def test_scorers_measured_over_other_pairs_are_not_compared() -> None:
    one = ar_rm_sc(R_CHOSEN, R_REJECTED, DISTINCT, 1)
    other_pairs = ar_rm_sc(R_CHOSEN, R_REJECTED, np.ones_like(DISTINCT), 1)
    other_prompts = ar_rm_sc(R_CHOSEN, R_REJECTED, DISTINCT, 1, groups=[0, 0, 1, 1])
    for other in (other_pairs, other_prompts):
        with pytest.raises(ValueError, match="not measured over the same distinct"):
            compare_rates(one, other, 1)


def test_scores_that_are_not_finite_are_named_by_pair_and_length() -> None:
    broken = R_CHOSEN.copy()
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"r_chosen must be finite.*\[\[2, 1\]\]"):
        ar_rm_sc(broken, R_REJECTED, DISTINCT, 1)
    with pytest.raises(ValueError, match=r"h_rejected must be finite"):
        ar_rm_hp(R_CHOSEN, R_REJECTED, H_CHOSEN, broken, DISTINCT, 1)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        ar_rm_sc(R_CHOSEN, R_REJECTED[:1], DISTINCT, 1)
    with pytest.raises(ValueError, match="one shape"):
        ar_rm_sc(R_CHOSEN[:, 0], R_REJECTED[:, 0], DISTINCT[:, 0], 1)
    with pytest.raises(ValueError, match="no pair"):
        ar_rm_sc(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2)), 1)
