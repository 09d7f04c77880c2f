"""Prefix accuracy against cases laid out by hand."""

import numpy as np
import pytest
from support.present import present

from orchestrator.evaluation.prefix_accuracy import both_reach, prefix_accuracy
from orchestrator.evaluation.statistics import paired_test

# Three pairs, three lengths. Faults stay once they are there.
FAULT_CHOSEN = np.array([[0, 0, 0], [0, 1, 1], [0, 0, 1]], bool)
FAULT_REJECTED = np.array([[0, 1, 1], [0, 0, 0], [1, 1, 1]], bool)
REACHED = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]], bool)
R_CHOSEN = np.array([[0.0, 2.0, 0.0], [0.0, 1.0, 0.0], [5.0, 3.0, 0.0]])
R_REJECTED = np.array([[9.0, 1.0, 9.0], [9.0, 0.0, 1.0], [4.0, 3.0, 9.0]])
ARRAYS = (R_CHOSEN, R_REJECTED, FAULT_CHOSEN, FAULT_REJECTED, REACHED)


def test_only_faults_of_the_rejected_response_make_cases_when_asked_so() -> None:
    result = prefix_accuracy(*ARRAYS, 1, groups=["p", "q", "r"], fault_in="rejected")
    assert result.cases.tolist() == [[0, 1], [2, 0], [2, 1]]
    assert result.correct.tolist() == [1, 1, 0]  # the last is a tie
    assert result.groups.tolist() == ["p", "r", "r"]
    assert present(result.rate).value == pytest.approx(2 / 3)
    assert present(result.rate).count == 3


def test_a_fault_in_either_response_makes_a_case_and_the_faultless_one_should_win() -> None:
    result = prefix_accuracy(*ARRAYS, 1, groups=["p", "q", "r"], fault_in="either")
    assert result.cases.tolist() == [[0, 1], [1, 1], [1, 2], [2, 0], [2, 1]]
    assert result.correct.tolist() == [1, 0, 1, 1, 0]
    assert present(result.rate).value == pytest.approx(3 / 5)


def test_prefixes_that_one_response_does_not_reach_are_no_case() -> None:
    assert both_reach([2, 3, 5], [4, 3, 9], [1, 2, 3]).tolist() == [
        [True, True, False],
        [True, True, True],
        [True, True, True],
    ]
    everywhere = prefix_accuracy(*ARRAYS[:4], np.ones_like(REACHED), 1, fault_in="rejected")
    assert [0, 2] in everywhere.cases.tolist()


def test_two_scorers_pair_case_by_case() -> None:
    good = prefix_accuracy(*ARRAYS, 1, groups=["p", "q", "r"], fault_in="either")
    arrays = (R_REJECTED, R_CHOSEN, *ARRAYS[2:])  # the same scorer turned round
    bad = prefix_accuracy(*arrays, 1, groups=["p", "q", "r"], fault_in="either")
    assert np.array_equal(good.cases, bad.cases)
    test = paired_test(good.correct, bad.correct, 1, groups=good.groups)
    assert test.difference == pytest.approx(present(good.rate).value - present(bad.rate).value)


def test_without_a_case_there_is_no_rate() -> None:
    none = np.zeros_like(REACHED)
    result = prefix_accuracy(R_CHOSEN, R_REJECTED, none, none, REACHED, 1, fault_in="either")
    assert result.rate is None
    assert (result.correct.shape, result.groups.shape, result.cases.shape) == ((0,), (0,), (0, 2))


def test_cases_of_one_prompt_count_as_one_draw() -> None:
    result = prefix_accuracy(*ARRAYS, 1, groups=["p", "p", "p"], fault_in="either")
    rate = present(result.rate)
    assert (rate.low, rate.high) == (rate.value, rate.value)


def test_rewards_that_are_not_finite_and_shapes_that_do_not_fit_are_refused() -> None:
    broken = R_REJECTED.copy()
    broken[1, 0] = np.nan
    with pytest.raises(ValueError, match=r"r_rejected must be finite.*\[\[1, 0\]\]"):
        prefix_accuracy(R_CHOSEN, broken, *ARRAYS[2:], 1, fault_in="either")
    with pytest.raises(ValueError, match="one shape"):
        prefix_accuracy(*ARRAYS[:4], REACHED[:1], 1, fault_in="either")
    with pytest.raises(ValueError, match="2 group ids for 3 pairs"):
        prefix_accuracy(*ARRAYS, 1, groups=["p", "q"], fault_in="either")
