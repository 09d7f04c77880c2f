"""Intervals and paired tests against hand counts, slow loops and SciPy's own implementations."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from support.present import present

from orchestrator.evaluation.statistics import (
    Interval,
    grid_intervals,
    mean_interval,
    paired_test,
    rate_interval,
)
from orchestrator.evaluation.win_tie import outcomes


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def ends(interval: Interval | None) -> tuple[float, float]:
    return present(interval).low, present(interval).high


def test_interval_of_independent_rows_agrees_with_scipys_percentile_bootstrap() -> None:
    values = noise(200) ** 2
    ours = mean_interval(values, 7, "oracle", samples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ends(ours) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert ours.count == 200


def test_grouped_interval_agrees_with_a_loop_that_draws_whole_groups() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(40, size=150)  # unequal sizes
    values = noise(40, 4)[groups] + 0.3 * noise(150, 5)
    members = [values[groups == name] for name in np.unique(groups)]
    means = []
    for _ in range(8000):
        drawn = [members[i] for i in rng.integers(len(members), size=len(members))]
        means.append(np.concatenate(drawn).mean())
    ours = mean_interval(values, 7, "oracle", groups=groups, samples=8000)
    assert ends(ours) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_rows_of_one_prompt_widen_the_interval_only_when_they_are_named_as_its_rows() -> None:
    once = noise(100)
    four_times = np.repeat(once, 4)
    prompts = np.repeat(np.arange(100), 4)
    single = mean_interval(once, 1, samples=8000)
    grouped = mean_interval(four_times, 1, groups=prompts, samples=8000)
    ignored = mean_interval(four_times, 1, samples=8000)
    assert ends(grouped) == pytest.approx(ends(single), abs=1e-12)  # the same draws of prompts
    assert (ignored.high - ignored.low) == pytest.approx((single.high - single.low) / 2, rel=0.1)


def test_the_key_alone_decides_the_resampling() -> None:
    values = noise(50)
    assert mean_interval(values, 1, "a") == mean_interval(values.copy(), 1, "a")
    assert ends(mean_interval(values, 1, "a")) != ends(mean_interval(values, 1, "b"))


def test_resampling_in_blocks_gives_the_result_of_resampling_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, other = noise(30), noise(30, 1)
    at_once = mean_interval(values, 1), paired_test(values, other, 1).low
    monkeypatch.setattr("orchestrator.evaluation.resampling.DRAWS_AT_ONCE", 100)
    in_blocks = mean_interval(values, 1), paired_test(values, other, 1).low
    assert ends(in_blocks[0]) == pytest.approx(ends(at_once[0]), rel=1e-12)
    assert in_blocks[1] == pytest.approx(at_once[1], rel=1e-12)


def test_grid_means_leave_out_what_does_not_count() -> None:
    values = [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    counted = [[True, True, False], [True, False, False], [True, True, False]]
    columns, mean = grid_intervals(values, counted, 1)
    assert present(columns[0]).value == pytest.approx(2 / 3)
    assert present(columns[1]).value == pytest.approx(1 / 2)
    assert columns[2] is None
    assert present(mean).value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert [present(cell).count for cell in (*columns[:2], mean)] == [3, 2, 3]


def test_a_grid_on_which_nothing_counts_has_no_interval() -> None:
    assert grid_intervals([[1.0, 2.0]], [[False, False]], 1) == ((None, None), None)


def test_a_column_of_one_group_keeps_its_value_where_resamples_miss_it() -> None:
    counted = np.zeros((20, 1), bool)
    counted[3] = True
    columns, _ = grid_intervals(np.full((20, 1), 0.25), counted, 1, samples=50)
    assert (present(columns[0]).value, *ends(columns[0])) == (0.25, 0.25, 0.25)


def test_a_wider_level_gives_a_wider_interval() -> None:
    values = noise(80)
    narrow, wide = mean_interval(values, 1, level=0.5), mean_interval(values, 1, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3])
def test_rounding_never_puts_the_mean_of_equal_values_outside_its_interval(value: float) -> None:
    for size in range(2, 40):
        interval = mean_interval(np.full(size, value), 1, groups=np.arange(size) // 3, samples=99)
        assert interval.low <= interval.value <= interval.high
        assert ends(interval) == pytest.approx((value, value))


@pytest.mark.parametrize("size", [6, 9])
def test_p_value_agrees_with_scipys_exact_sign_flip_test(size: int) -> None:
    first, second = noise(size, 1) + 0.6, noise(size, 2)
    exact = stats.permutation_test(
        (first - second,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    ours = paired_test(first, second, 5, flips=40_000).p_value
    assert ours == pytest.approx(exact, abs=0.01)


def test_three_prompts_that_all_gain_have_the_p_value_counted_by_hand() -> None:
    # Of the 8 sign patterns two (+++ and ---) go as far as the data: 2/8.
    test = paired_test([2, 2, 2], [1, 1, 1], 5, flips=40_000)
    assert (test.difference, test.low, test.high) == (1, 1, 1)
    assert test.p_value == pytest.approx(0.25, abs=0.01)


def test_a_difference_has_a_sign_only_where_interval_and_p_value_agree() -> None:
    # Three prompts that all gain: an interval without width, and p = 2/8.
    assert paired_test([2, 2, 2], [1, 1, 1], 5).sign == ""
    gain = noise(40, 1) + 3
    assert paired_test(gain, np.zeros(40), 5).sign == "+"
    assert paired_test(np.zeros(40), gain, 5).sign == "-"
    assert paired_test(noise(40, 1), noise(40, 2), 5).sign == ""


def test_of_few_prompts_some_differences_are_told_by_the_interval_alone_and_have_no_sign() -> None:
    tests = [paired_test(noise(8, seed) + 0.7, np.zeros(8), seed) for seed in range(60)]
    by_interval = [test for test in tests if not test.low <= 0 <= test.high]
    unsigned = [test for test in by_interval if test.sign == ""]
    assert unsigned and len(unsigned) < len(by_interval)
    assert all(test.p_value > 0.05 for test in unsigned)


def test_signs_are_flipped_by_prompt_and_not_by_row() -> None:
    first, second = np.ones(12), np.zeros(12)
    by_prompt = paired_test(first, second, 5, groups=np.repeat([0, 1, 2], 4), flips=20_000)
    by_row = paired_test(first, second, 5, flips=20_000)
    assert by_prompt.p_value == pytest.approx(0.25, abs=0.01)
    assert by_row.p_value == pytest.approx(2 / 2**12, abs=0.001)
    assert by_prompt.count == by_row.count == 12


def test_paired_interval_is_that_of_the_differences() -> None:
    first, second, groups = noise(60, 1), noise(60, 2), np.arange(60) % 20
    test = paired_test(first, second, 5, groups=groups)
    interval = mean_interval(first - second, 5, groups=groups)
    assert (test.difference, test.low, test.high) == (interval.value, *ends(interval))


def test_a_p_value_is_never_zero() -> None:
    assert paired_test(np.ones(400), np.zeros(400), 5, flips=999).p_value == 1 / 1000


def test_differences_that_cancel_have_p_value_one() -> None:
    test = paired_test([0.1, 0.2, 0.3, -0.6], np.zeros(4), 5)
    assert test.difference == pytest.approx(0, abs=1e-15)
    assert test.p_value == 1


def test_identical_values_differ_by_nothing() -> None:
    values = noise(30)
    test = paired_test(values, values, 5, groups=np.arange(30) % 7)
    assert (test.difference, test.low, test.high, test.p_value) == (0, 0, 0, 1)


def test_paired_grids_weigh_columns_alike_and_rows_by_what_counts() -> None:
    first = np.array([[1.0, 1.0], [1.0, 9.0], [0.0, 9.0]])
    counted = np.array([[True, True], [True, False], [True, False]])
    test = paired_test(first, np.zeros((3, 2)), 5, counted=counted)
    assert test.difference == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named_by_position(bad: float) -> None:
    with pytest.raises(ValueError, match=r"values must be finite.* 2 positions: \[1, 3\]"):
        mean_interval([0, bad, 0, bad], 1)
    with pytest.raises(ValueError, match=r"second must be finite.* \[2\]"):
        paired_test([0, 0, 0], [0, 0, bad], 1)
    with pytest.raises(ValueError, match=r"\[\[0, 1\]\]"):
        grid_intervals([[0, bad]], None, 1)


@pytest.mark.parametrize("call", [lambda: mean_interval([], 1), lambda: paired_test([], [], 1)])
def test_nothing_to_average_is_an_error(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"no row to (average: values|compare: `first`) is empty"):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1, 2], 1, groups=["a"]), "1 group ids for 2 rows"),
        (lambda: mean_interval([[1, 2]], 1), r"shape \(N,\)"),
        (lambda: paired_test([1, 2], [1], 1), "one shape"),
        (lambda: grid_intervals([[1, 2]], [[True]], 1), "counted has shape"),
        (lambda: mean_interval([1, 2], 1, level=95), "level"),
        (lambda: mean_interval([1, 2], 1, samples=0), "at least 1"),
        (lambda: paired_test([1, 2], [1, 2], 1, flips=0), "at least 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_wins_and_ties_are_counted_against_the_base_response() -> None:
    wins, ties = outcomes([2, 1, 0, 5], [1, 1, 1, 1])
    assert (wins.tolist(), ties.tolist()) == ([1, 0, 0, 1], [0, 1, 0, 0])


def test_the_base_ties_with_itself_everywhere() -> None:
    grades = noise(20)
    wins, ties = outcomes(grades, grades)
    assert not wins.any() and ties.all()


def test_wins_and_ties_refuse_missing_grades_and_unequal_counts() -> None:
    with pytest.raises(ValueError, match=r"base_grades must be finite.*\[1\]"):
        outcomes([0, 0], [0, np.nan])
    with pytest.raises(ValueError, match="one shape"):
        outcomes([0, 0], [0])


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (10, 20, 0.2993, 0.7007), (1, 1, 0.2065, 1.0)],
)
def test_a_rate_has_wilsons_interval(right: int, of: int, low: float, high: float) -> None:
    found = rate_interval([1] * right + [0] * (of - right))
    assert (found.value, found.count) == (right / of, of)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("values", [[], [0.5, 1], [2, 0], [[0, 1]], [float("nan")]])
def test_what_is_no_rate_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"rate|NaN|finite"):
        rate_interval(values)
