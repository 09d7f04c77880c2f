"""Majority vote and weighted best-of-N (Wang et al. 2023): votes on the final answers of N samples.

The samples are those of best-of-N; the field ``answers`` says how a sample's final answer is
extracted (``data/answers.py``).
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from orchestrator.data.answers import answers_in
from orchestrator.search.client import MeteredClient
from orchestrator.search.method import register
from orchestrator.search.methods.best_of_n import (
    IndependentSamplesMethod,
    SamplesState,
    draw_samples,
)
from orchestrator.search.problem import Candidate, Problem, PromptFailed, competing


class Vote(IndependentSamplesMethod):
    """A vote among the final answers of N samples."""

    answers: Literal["gsm8k", "last_number", "boxed", "math"] = "gsm8k"
    """How the final answer is extracted: ``gsm8k`` takes the text after the last ``####``, else the
    last number; ``last_number`` the last number; ``boxed`` the last ``\\boxed{...}``; ``math`` the
    final answer in any form that math-verify reads, compared by value where it can be parsed.
    """

    needs_answers: ClassVar[bool] = True

    async def begin(self, client: MeteredClient) -> SamplesState:
        """Draw the N samples of best-of-N, with their texts."""
        return await draw_samples(client, self.n, texts=True)

    def voters(self, state: SamplesState) -> tuple[list[Candidate], list[str | None]]:
        """Return the samples that compete, and their answers, None for no answer."""
        samples = competing(state.candidates)
        texts = [
            text
            for sample, text in zip(state.candidates, state.texts, strict=True)
            if sample.finished or not samples[0].finished
        ]
        return samples, answers_in(self.answers, texts)


@register
class WeightedBestOfN(Vote):
    """Weighted best-of-N: the best sample of the answer with the largest sum of weights."""

    name: Literal["weighted_bon"] = "weighted_bon"
    weights: Literal["sigmoid", "score"] = "sigmoid"
    """How a score becomes a weight: `sigmoid` for rewards, which have no bounds; `score` uses the
    scores themselves, which must be in [0, 1], such as the probabilities of `step_tag` models.
    """

    order: ClassVar[int] = 21

    def answer(self, client: MeteredClient, state: SamplesState) -> Candidate:
        """Return the sample that wins the vote."""
        samples, answers = self.voters(state)
        scores = [sample.score for sample in samples]
        unchanged = self.weights == "score"
        if unchanged and not 0 <= min(scores) <= max(scores) <= 1:
            raise PromptFailed("weights = 'score': a score is not in [0, 1]; valid: sigmoid")
        winner, margin = decided_vote(answers, scores, probabilities=unchanged)
        client.decided(margin)
        return samples[winner]


@register
class MajorityVote(Vote):
    """Majority vote: the first sample of the most frequent answer, without a scorer."""

    name: Literal["vote"] = "vote"

    order: ClassVar[int] = 22
    needs_scorer: ClassVar[bool] = False

    def is_done(self, problem: Problem, state: SamplesState) -> bool:
        """Return True: samples need no scores."""
        return True

    def answer(self, client: MeteredClient, state: SamplesState) -> Candidate:
        """Return the sample that wins the vote."""
        samples, answers = self.voters(state)
        return samples[weighted_choice(answers)]


def weighted_choice(
    answers: Sequence[str | None],
    scores: Sequence[float] | None = None,
    *,
    probabilities: bool = False,
) -> int:
    """Return the index of the best response of the answer with the largest summed weight.

    A response's weight is 1 without ``scores`` (majority vote), else sigma(score) (weighted
    best-of-N): rewards are unbounded and defined only up to a shift, so their sum would favour or
    penalize frequent answers. Scores that are ``probabilities`` are used as weights unchanged. Two
    answers are equal if their texts are equal. None means no answer and wins only if all are None.
    Ties go to the answer whose best response has the higher score, then to the earlier answer. The
    best response of an answer is the one with the highest score, or the earliest of equal ones.

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
    """Return ``weighted_choice`` and its margin.

    The margin is the smaller of the winner's lead in summed weight and its best response's lead in
    score over the other responses with the same answer; infinite without ``scores``, as counts do
    not depend on rounding.
    """
    if not answers:
        raise ValueError("a vote needs at least one answer")
    if scores is not None and (len(scores) != len(answers) or any(map(math.isnan, scores))):
        raise ValueError(f"{len(answers)} answers need as many scores, none NaN: {list(scores)}")
    from scipy.special import expit  # imported late: commands load all methods

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
        # An exact sum, independent of the order of the samples.
        total = math.fsum(weights[i] for i in group)
        return total, max(ranks[i] for i in group), -group[0]

    winner, *others = sorted(groups.values(), key=standing, reverse=True)
    best, *others_of_answer = sorted(winner, key=lambda i: ranks[i], reverse=True)
    if scores is None:
        return best, math.inf
    lead = standing(winner)[0] - max((standing(group)[0] for group in others), default=-math.inf)
    return best, min(
        lead, ranks[best] - max((ranks[i] for i in others_of_answer), default=-math.inf)
    )
