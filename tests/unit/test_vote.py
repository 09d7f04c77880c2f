"""Majority vote and weighted best-of-N, by hand."""

import math

import pytest

from orchestrator.data.final_answers import extract_answer
from orchestrator.search.methods.vote import weighted_choice


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["5", "7", "5"], 0),
        (["7", "5", "5"], 1),
        (["7", "5"], 0),  # one vote each: the earlier
        (["9", "7", "5", "5", "7"], 1),  # two each: the answer that comes earlier
        ([None, None, None, "3"], 3),  # no answer is outvoted by any
        ([None, "3", "4", "4"], 2),
        ([None, None], 0),
        (["1"], 0),
        (["", "x", ""], 0),  # an empty answer is one
    ],
)
def test_majority_vote(answers: list[str | None], expected: int) -> None:
    assert weighted_choice(answers) == expected


def test_weights_are_sigmoids_of_rewards() -> None:
    # 5: sigma(-2) + sigma(-2.5) + sigma(-3) = 0.119 + 0.076 + 0.047 = 0.242; 7: sigma(-1) = 0.269.
    answers, scores = ["5", "5", "7", "5"], [-2.0, -2.5, -1.0, -3.0]
    assert sigma(-2) + sigma(-2.5) + sigma(-3) < sigma(-1)
    assert weighted_choice(answers, scores) == 2
    # A shift of all by 3: 0.731 + 0.622 + 0.5 = 1.854 against 0.881; the best of the fives.
    assert weighted_choice(answers, [x + 3 for x in scores]) == 0
    # Many far below zero do not outweigh one, however large they are; a sum of rewards would say 7.
    assert weighted_choice(["5", "5", "7"], [-900.0, 2.0, -1.0]) == 1
    assert weighted_choice(["5", "7", "5"], [800.0, 900.0, 1.0]) == 0


def test_probabilities_weigh_as_they_are() -> None:
    answers, scores = ["5", "7", "5"], [0.1, 0.35, 0.2]
    assert weighted_choice(answers, scores, probabilities=True) == 1  # 0.3 against 0.35
    assert weighted_choice(answers, scores) == 2  # sigma: 1.07 against 0.59


def test_ties_go_to_the_higher_best_score_and_then_to_the_earlier() -> None:
    # 0.5 + 0.25 = 0.75 + 0: the weights are exact in binary.
    answers, scores = ["5", "7", "5", "7"], [0.5, 0.75, 0.25, 0.0]
    assert weighted_choice(answers, scores, probabilities=True) == 1
    assert weighted_choice(["5", "7"], [0.5, 0.5], probabilities=True) == 0
    assert weighted_choice(["5", "5", "7"], [1.0, 1.0, -9.0]) == 0


def test_a_response_without_an_answer_never_wins_while_there_is_another() -> None:
    assert weighted_choice([None, "5", None], [9.0, -9.0, 8.0]) == 1
    assert weighted_choice([None, None], [1.0, 2.0]) == 1  # nothing else: the best


def test_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one answer"):
        weighted_choice([])
    with pytest.raises(ValueError, match="2 answers need as many scores"):
        weighted_choice(["1", "2"], [1.0])
    with pytest.raises(ValueError, match=r"none NaN: \[1.0, nan\]"):
        weighted_choice(["1", "2"], [1.0, math.nan])
    assert weighted_choice(["1", "2"], [-math.inf, math.inf]) == 1


def test_with_the_answers_of_gsm8k() -> None:
    texts = ["So it is 12.", "#### 1,200", "I cannot say.", "The answer is $1200.00."]
    answers = [extract_answer(text) for text in texts]
    assert answers == ["12", "1200", None, "1200"]
    assert weighted_choice(answers) == 1
    assert weighted_choice(answers, [3.0, 0.0, 9.0, 0.5]) == 3  # 0.95 against 0.5 + 0.62
