"""What must hold of every metric and interval, whatever the scores."""

import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from support.present import present

from orchestrator.evaluation.agreement import ar_rm_hp, ar_rm_sc, ar_sc_hp, compare_rates
from orchestrator.evaluation.metrics.diversity import diversity
from orchestrator.evaluation.prefix_accuracy import prefix_accuracy
from orchestrator.evaluation.statistics import mean_interval, paired_test
from orchestrator.evaluation.win_tie import outcomes

SAMPLES = 200  # resamples: enough for what is shown here, and fast
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ids = NDArray[np.int64]
SHAPE = st.tuples(st.integers(1, 12), st.integers(1, 4))
# No deadline: how long one example takes says more of a busy machine than of the code.
Scored = tuple[list[Floats], Bools, Ids]
Grouped = tuple[Floats, Ids]
Test = Callable[[int, int], bool]  # of a pair and a length
unhurried = settings(max_examples=60, deadline=None)
FEW_SCORES = st.sampled_from([-1.0, 0.0, 0.5, 2.0])  # few values, so that ties are common


@st.composite
def scored_pairs(draw: st.DrawFn) -> Scored:
    """([r_chosen, r_rejected, h_chosen, h_rejected], distinct) of one shape, and prompt ids."""
    shape = draw(SHAPE)
    scores = [draw(arrays.arrays(np.float64, shape, elements=FEW_SCORES)) for _ in range(4)]
    distinct = draw(arrays.arrays(np.bool_, shape))
    prompts = draw(arrays.arrays(np.int64, shape[0], elements=st.integers(0, 5)))
    return scores, distinct, prompts


@st.composite
def grouped_values(draw: st.DrawFn) -> Grouped:
    size = draw(st.integers(1, 30))
    values = draw(arrays.arrays(np.float64, size, elements=st.floats(-1e6, 1e6)))
    return values, draw(arrays.arrays(np.int64, size, elements=st.integers(0, 8)))


@unhurried
@given(grouped_values(), st.integers(0, 3))
def test_an_interval_contains_its_value_and_stays_among_the_values(
    data: Grouped, seed: int
) -> None:
    values, groups = data
    interval = mean_interval(values, seed, groups=groups, samples=SAMPLES)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert interval.low <= interval.value <= interval.high
    assert values.min() - slack <= interval.low
    assert interval.high <= values.max() + slack


@unhurried
@given(grouped_values(), st.randoms(use_true_random=False))
def test_with_groups_the_order_of_rows_changes_nothing(
    data: Grouped, shuffler: random.Random
) -> None:
    values, groups = data
    values = np.round(values)  # whole numbers add up the same in any order
    order = list(range(len(values)))
    shuffler.shuffle(order)
    plain = mean_interval(values, 1, groups=groups, samples=SAMPLES)
    shuffled = mean_interval(values[order], 1, groups=groups[order], samples=SAMPLES)
    assert plain == shuffled


@unhurried
@given(grouped_values())
def test_a_method_against_itself_differs_by_nothing(data: Grouped) -> None:
    values, groups = data
    test = paired_test(values, values, 1, groups=groups, samples=SAMPLES, flips=SAMPLES)
    assert (test.difference, test.low, test.high, test.p_value) == (0, 0, 0, 1)


@unhurried
@given(grouped_values())
def test_exchanging_the_methods_turns_the_difference_round_and_keeps_the_p_value(
    data: Grouped,
) -> None:
    values, groups = data
    other = values[::-1]
    one = paired_test(values, other, 1, groups=groups, samples=SAMPLES, flips=SAMPLES)
    back = paired_test(other, values, 1, groups=groups, samples=SAMPLES, flips=SAMPLES)
    scale = 1e-9 * (1 + np.abs(values).max())
    assert one.difference == pytest.approx(-back.difference, abs=scale)
    assert one.low == pytest.approx(-back.high, abs=scale)
    assert one.p_value == back.p_value


@unhurried
@given(scored_pairs(), st.randoms(use_true_random=False))
def test_permuting_the_pairs_changes_no_rate_and_no_interval(
    data: Scored, shuffler: random.Random
) -> None:
    (r_c, r_r, h_c, h_r), distinct, prompts = data
    order = list(range(len(prompts)))
    shuffler.shuffle(order)
    plain = ar_rm_hp(r_c, r_r, h_c, h_r, distinct, 1, groups=prompts, samples=SAMPLES)
    r_c, r_r, h_c, h_r = (scores[order] for scores in (r_c, r_r, h_c, h_r))
    shuffled = ar_rm_hp(
        r_c, r_r, h_c, h_r, distinct[order], 1, groups=prompts[order], samples=SAMPLES
    )
    for pair_set in ("strict", "distinct", "decided"):
        assert getattr(plain, pair_set) == getattr(shuffled, pair_set)


def slow_rate(agrees: Test, counts: Test, pairs: int, t: int) -> float | None:
    """The share of the pairs counted at t that agree, pair by pair; None where none counts."""
    some = [agrees(i, t) for i in range(pairs) if counts(i, t)]
    return sum(some) / len(some) if some else None


@unhurried
@given(scored_pairs())
def test_all_three_rates_equal_a_slow_count_pair_by_pair(data: Scored) -> None:
    (r_c, r_r, h_c, h_r), distinct, prompts = data

    def r(i: int, t: int) -> float:
        return float(np.sign(r_c[i, t] - r_r[i, t]))

    def h(i: int, t: int) -> float:
        return float(np.sign(h_c[i, t] - h_r[i, t]))

    counted: dict[str, Test] = {
        "strict": lambda i, t: True,
        "distinct": lambda i, t: bool(distinct[i, t]),
        "decided": lambda i, t: bool(distinct[i, t] and h(i, t) != 0),
    }
    agreed: dict[str, Test] = {
        "rm_hp": lambda i, t: bool(distinct[i, t] and r(i, t) == h(i, t) != 0),
        "sc_hp": lambda i, t: bool(distinct[i, t] and h(i, t) > 0),
        "rm_sc": lambda i, t: bool(distinct[i, t] and r(i, t) > 0),
    }
    found = {
        "rm_hp": ar_rm_hp(r_c, r_r, h_c, h_r, distinct, 1, groups=prompts, samples=SAMPLES),
        "sc_hp": ar_sc_hp(h_c, h_r, distinct, 1, groups=prompts, samples=SAMPLES),
        "rm_sc": ar_rm_sc(r_c, r_r, distinct, 1, groups=prompts, samples=SAMPLES),
    }
    assert found["rm_sc"].decided is None
    for name, rates in found.items():
        for pair_set, counts in counted.items():
            curve = getattr(rates, pair_set)
            if curve is None:
                continue
            slow = [slow_rate(agreed[name], counts, len(prompts), t) for t in range(r_c.shape[1])]
            assert [interval and interval.value for interval in curve.per_t] == slow
            known = [value for value in slow if value is not None]
            mean = sum(known) / len(known) if known else None
            assert (curve.mean and curve.mean.value) == (mean and pytest.approx(mean))


@unhurried
@given(scored_pairs())
def test_a_scorer_that_is_its_own_judge_agrees_wherever_it_does_not_tie(data: Scored) -> None:
    (r_c, r_r, _, _), distinct, prompts = data
    itself = ar_rm_hp(r_c, r_r, r_c, r_r, distinct, 1, groups=prompts, samples=SAMPLES)
    for interval in (*present(itself.decided).per_t, present(itself.decided).mean):
        assert interval is None or interval.value == interval.low == interval.high == 1


@unhurried
@given(scored_pairs())
def test_a_judge_that_always_prefers_the_chosen_makes_rm_hp_of_rm_sc(data: Scored) -> None:
    (r_c, r_r, _, _), distinct, prompts = data
    ones, zeros = np.ones_like(r_c), np.zeros_like(r_c)
    by_judge = ar_rm_hp(r_c, r_r, ones, zeros, distinct, 1, groups=prompts, samples=SAMPLES)
    by_pair = ar_rm_sc(r_c, r_r, distinct, 1, groups=prompts, samples=SAMPLES)
    judge = ar_sc_hp(ones, zeros, distinct, 1, groups=prompts, samples=SAMPLES)
    assert by_judge.strict == by_pair.strict
    assert by_judge.decided == by_judge.distinct == by_pair.distinct
    assert judge.distinct.mean is None or judge.distinct.mean.value == 1


@unhurried
@given(scored_pairs(), st.floats(0.1, 10), st.floats(-5, 5))
def test_only_the_order_of_rewards_matters_to_agreement_and_prefix_accuracy(
    data: Scored, scale: float, shift: float
) -> None:
    (r_c, r_r, fault_c, fault_r), distinct, prompts = data
    scaled = (r_c * scale + shift, r_r * scale + shift)
    one = ar_rm_sc(r_c, r_r, distinct, 1, groups=prompts, samples=SAMPLES)
    other = ar_rm_sc(*scaled, distinct, 1, groups=prompts, samples=SAMPLES)
    assert one.strict == other.strict
    if distinct.any():
        test = compare_rates(one, other, 1, samples=SAMPLES)
        assert test is not None
        assert (test.difference, test.p_value) == (0, 1)
    faults = (fault_c > 0, fault_r > 0, distinct)
    plain = prefix_accuracy(r_c, r_r, *faults, 1, groups=prompts, fault_in="either")
    again = prefix_accuracy(*scaled, *faults, 1, groups=prompts, fault_in="either")
    assert plain.rate == again.rate


@unhurried
@given(scored_pairs())
def test_turning_pairs_round_keeps_prefix_accuracy_where_either_may_hold_the_fault(
    data: Scored,
) -> None:
    (r_c, r_r, fault_c, fault_r), reached, prompts = data
    faults = fault_c > 0, fault_r > 0
    plain = prefix_accuracy(r_c, r_r, *faults, reached, 1, groups=prompts, fault_in="either")
    turned = prefix_accuracy(r_r, r_c, *faults[::-1], reached, 1, groups=prompts, fault_in="either")
    assert np.array_equal(plain.correct, turned.correct)
    assert plain.rate == turned.rate


@unhurried
@given(grouped_values(), st.randoms(use_true_random=False))
def test_wins_and_ties_exclude_each_other_and_their_rate_does_not_depend_on_order(
    data: Grouped, shuffler: random.Random
) -> None:
    values, groups = data
    grades, base = np.round(values), np.round(values[::-1])
    wins, ties = outcomes(grades, base)
    assert not (wins * ties).any()
    order = list(range(len(values)))
    shuffler.shuffle(order)
    moved = outcomes(grades[order], base[order])
    assert np.array_equal(moved, (wins[order], ties[order]))
    rate = mean_interval(wins + ties, 1, groups=groups, samples=SAMPLES)
    assert rate == mean_interval(np.add(*moved), 1, groups=groups[order], samples=SAMPLES)


@unhurried
@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_diversity_is_a_share_and_one_only_without_repetition(words: list[str]) -> None:
    value = diversity(words)
    pairs = list(pairwise(words))
    assert 0 < value <= 1
    assert (value == 1) == (len(set(pairs)) == len(pairs))
    assert value == diversity(" ".join(words)) == diversity([ord(word) for word in words])


def test_about_95_of_100_intervals_hold_the_true_rate() -> None:
    rng = np.random.default_rng(0)
    truth, covered = 0.4, 0
    for world in range(300):
        interval = mean_interval(rng.random(80) < truth, world, samples=400)
        covered += interval.low <= truth <= interval.high
    assert 0.90 <= covered / 300 <= 0.985


def test_intervals_hold_the_true_rate_for_dependent_rows_only_with_groups() -> None:
    rng = np.random.default_rng(1)
    truth, by_prompt, by_row = 0.4, 0, 0
    prompts = np.repeat(np.arange(80), 6)
    for world in range(300):
        rows = np.repeat(rng.random(80) < truth, 6)  # six rows that always say the same
        grouped = mean_interval(rows, world, groups=prompts, samples=400)
        ignored = mean_interval(rows, world, samples=400)
        by_prompt += grouped.low <= truth <= grouped.high
        by_row += ignored.low <= truth <= ignored.high
    assert 0.90 <= by_prompt / 300 <= 0.985
    assert by_row / 300 < 0.75


def test_p_values_are_small_as_seldom_as_they_say_when_nothing_differs() -> None:
    rng = np.random.default_rng(2)
    small = 0
    for world in range(400):
        first, second = rng.normal(size=(2, 40))
        small += paired_test(first, second, world, samples=1, flips=500).p_value <= 0.1
    assert 0.05 <= small / 400 <= 0.15
