"""The prompt of a search, candidates for its response, and their order.

The higher score wins; ties go to the earlier candidate. If any candidate is finished, only finished
candidates can become the response.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.randomness import Key, stream_key
from orchestrator.search.engines import Continuation, Ids

UNSCORED = float("-inf")  # lower than every score
NOT_A_NUMBER = "the reward model's score is NaN or infinite"


class PromptFailed(Exception):
    """One prompt cannot be answered; the message is the reason. Other prompts continue.

    The reason is one of a few texts, without the prompt's content. A backend returns it as a
    request's answer, or an engine raises it for a request.
    """


@dataclass(frozen=True)
class Candidate:
    """A response or a prefix of one; the default is the empty prefix.

    ``token_ids`` exclude the end token, ``finished`` says whether it was drawn. ``step_scores`` are
    the scores after each step; the last one is ``score``.
    """

    token_ids: Ids = ()
    finished: bool = False
    score: float = UNSCORED
    step_scores: tuple[float, ...] = ()

    def extended(self, continuation: Continuation, score: float) -> "Candidate":
        """Return the candidate with a continuation; ``score`` is that of the result."""
        return Candidate(
            self.token_ids + continuation.token_ids,
            continuation.finished,
            score,
            (*self.step_scores, score),
        )


@dataclass(frozen=True)
class Problem:
    """A prompt, for a response of at most ``max_new_tokens``.

    ``prompt_ids`` are the policy's. ``reward_prompt_ids`` are the prompt in the template and tokens
    of the reward model; None: equal to ``prompt_ids``.
    """

    prompt_id: str
    prompt_ids: Ids
    seed: int
    max_new_tokens: int
    reward_prompt_ids: Ids | None = None

    @property
    def scored_prompt_ids(self) -> Ids:
        """The prompt ids of score requests."""
        return self.prompt_ids if self.reward_prompt_ids is None else self.reward_prompt_ids

    def key(self, *purpose: Key) -> int:
        """Return the key of the random stream for a purpose (method, step, candidate, ...)."""
        return stream_key(self.seed, self.prompt_id, *purpose)

    def room(self, candidate: Candidate) -> int:
        """Return how many tokens may be added to a candidate: none once it is finished."""
        return 0 if candidate.finished else self.max_new_tokens - len(candidate.token_ids)


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return candidates from the best to the worst, equal scores in their original order."""
    return sorted(candidates, key=lambda candidate: candidate.score, reverse=True)


def selection_margin(order: Sequence[Candidate], count: int) -> float:
    """Return the margin of selecting the first ``count`` of ranked candidates.

    It is the smallest score difference of two consecutive different candidates, up to the first
    one not selected: the order of the selected ones decides their random streams. Infinite if
    there is no such pair.
    """
    pairs = pairwise(order[: count + 1])
    return min(
        (
            one.score - other.score
            for one, other in pairs
            if (one.token_ids, one.finished) != (other.token_ids, other.finished)
        ),
        default=math.inf,
    )


def competing(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates for the response: the finished ones, or all if none is finished."""
    return [candidate for candidate in candidates if candidate.finished] or list(candidates)
