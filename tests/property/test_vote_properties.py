"""Votes over any samples: the order of samples decides ties only, as the rule says."""

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.methods.vote import weighted_choice

ANSWERS = st.sampled_from(["1", "2", "3", None])
NONE: set[str | None] = {None}
# Few different scores, so that equal samples and ties are common.
SAMPLES = st.lists(st.tuples(ANSWERS, st.sampled_from([-800.0, -1.0, 0.0, 0.5, 3.0])), min_size=1)


def chosen(samples: list[tuple[str | None, float]]) -> tuple[str | None, float]:
    answers, scores = zip(*samples, strict=True)
    return samples[weighted_choice(answers, scores)]


def standing(samples: list[tuple[str | None, float]], answer: str | None) -> tuple[float, float]:
    """Weight and best score of an answer, in the plainest way."""
    scores = [score for given, score in samples if given == answer]
    weights = [0.0 if x < -700 else 1 / (1 + math.exp(-x)) for x in scores]
    return math.fsum(weights), max(scores)


@given(SAMPLES, st.randoms())
def test_the_order_of_samples_does_not_change_how_good_the_choice_is(
    samples: list[tuple[str | None, float]], random: Random
) -> None:
    other = list(samples)
    random.shuffle(other)
    first, second = chosen(samples), chosen(other)
    assert standing(samples, first[0]) == standing(samples, second[0])
    assert first[1] == second[1]
    answers = {answer for answer, _ in samples if answer is not None} or NONE
    best = [a for a in answers if standing(samples, a) == standing(samples, first[0])]
    if len(best) == 1:
        assert first == second


@given(SAMPLES)
def test_the_choice_is_the_best_answer_and_its_best_response(
    samples: list[tuple[str | None, float]],
) -> None:
    answer, score = chosen(samples)
    answers = {given for given, _ in samples if given is not None} or NONE
    assert answer in answers
    assert standing(samples, answer) == max(standing(samples, other) for other in answers)
    assert score == standing(samples, answer)[1]


@given(st.lists(ANSWERS, min_size=1), st.data())
def test_swapping_equal_samples_changes_nothing(
    answers: list[str | None], data: st.DataObject
) -> None:
    """A vote without scores: the chosen answer is the first of the most frequent."""
    found = answers[weighted_choice(answers)]
    counted: list[str | None] = [answer for answer in answers if answer is not None] or answers
    assert found == max(dict.fromkeys(counted), key=lambda answer: counted.count(answer))
    twice = data.draw(st.permutations([i for i, a in enumerate(answers) if a == found]))
    swapped = list(answers)
    for i, j in zip(sorted(twice), twice, strict=True):
        swapped[i] = answers[j]
    assert answers[weighted_choice(swapped)] == found


@given(SAMPLES)
def test_a_sample_more_for_the_winner_leaves_it_the_winner(
    samples: list[tuple[str | None, float]],
) -> None:
    answer, _ = chosen(samples)
    assert chosen([*samples, (answer, 0.5)])[0] == answer
