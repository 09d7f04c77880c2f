"""Majority vote and weighted best-of-N (Wang et al. 2023): which answer N samples stand for.

The samples are those of best-of-N; the answer in a sample's text is found by an extraction that the
parameters name (``data/answers.py``). Knows no engine and no task.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import expit

from orchestrator.data.answers import answers_in, check_extraction
from orchestrator.search.best_of_n import BestOfNParameters, SamplesState, draw_samples
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate, Problem, competing


@dataclass(frozen=True)
class VoteParameters(BestOfNParameters):
    """``answers`` names how the answer is found in a text: a name in ``data.answers.ANSWERS``."""

    answers: str = "last_number"


async def draw_texts(ask: Ledger, parameters: VoteParameters) -> SamplesState:
    """Draws N responses, those of best-of-N, with their texts."""
    check_extraction(parameters.answers)  # before anything is drawn
    return await draw_samples(ask, parameters, texts=True)


def are_drawn(problem: Problem, state: SamplesState) -> bool:
    """A majority vote scores nothing: it is done once there are samples."""
    return True


def most_frequent(ask: Ledger, state: SamplesState, parameters: VoteParameters) -> Candidate:
    """Majority vote: the first sample of the most frequent answer; no score is asked for."""
    samples, answers = _voters(state, parameters)
    return samples[weighted_choice(answers)]


def most_rewarded(ask: Ledger, state: SamplesState, parameters: VoteParameters) -> Candidate:
    """Weighted best-of-N: the best sample of the answer with the most summed reward."""
    samples, answers = _voters(state, parameters)
    chosen, margin = decided_vote(answers, [sample.score for sample in samples])
    ask.decided(margin)
    return samples[chosen]


def _voters(
    state: SamplesState, parameters: VoteParameters
) -> tuple[list[Candidate], list[str | None]]:
    """The samples that the answer is among, and their answers."""
    samples = competing(state.candidates)
    texts = [
        text
        for sample, text in zip(state.candidates, state.texts, strict=True)
        if sample.finished or not samples[0].finished
    ]
    return samples, answers_in(parameters.answers, texts)


def weighted_choice(
    answers: Sequence[str | None],
    scores: Sequence[float] | None = None,
    *,
    probabilities: bool = False,
) -> int:
    """The index of the best response of the answer with the largest summed weight.

    A response's weight is 1 without ``scores`` (majority vote), else sigma(score) (weighted
    best-of-N): rewards are unbounded and known up to a shift only, and a sum of such would favour
    or punish an answer for being frequent. Scores that are ``probabilities`` weigh as they are.
    Answers are the same where their texts are; None is no answer, and wins only where all are None.

    Ties: the answer whose best response scores higher, then the one that comes earlier. The best
    response of an answer is that of the highest score, then the earlier one.

    Raises:
        ValueError: no answers, another number of scores, or a score that is NaN.
    """
    return decided_vote(answers, scores, probabilities=probabilities)[0]


def decided_vote(
    answers: Sequence[str | None],
    scores: Sequence[float] | None = None,
    *,
    probabilities: bool = False,
) -> tuple[int, float]:
    """As ``weighted_choice``, and how near it was.

    That is the lesser of the winner's lead in summed weight and its best response's lead in score:
    infinite without ``scores``, for counts of votes do not depend on rounding.
    """
    if not answers:
        raise ValueError("a vote without answers")
    if scores is not None and (len(scores) != len(answers) or any(map(math.isnan, scores))):
        raise ValueError(f"{len(answers)} answers need as many scores, none NaN: {list(scores)}")
    ranks = [0.0] * len(answers) if scores is None else list(scores)
    weights = [1.0] * len(answers)
    if scores is not None:
        weights = ranks if probabilities else [float(expit(score)) for score in scores]
    groups: dict[str | None, list[int]] = {}
    for i, answer in enumerate(answers):
        groups.setdefault(answer, []).append(i)
    if len(groups) > 1:
        groups.pop(None, None)

    def standing(group: list[int]) -> tuple[float, float, int]:
        # The exact sum: the order of the samples decides nothing.
        total = math.fsum(weights[i] for i in group)
        return total, max(ranks[i] for i in group), -group[0]

    winner, *others = sorted(groups.values(), key=standing, reverse=True)
    first, *rest = sorted(winner, key=lambda i: ranks[i], reverse=True)
    if scores is None:
        return first, math.inf
    lead = standing(winner)[0] - max((standing(group)[0] for group in others), default=-math.inf)
    return first, min(lead, ranks[first] - max((ranks[i] for i in rest), default=-math.inf))
