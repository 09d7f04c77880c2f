"""What a search works on: a prompt to answer, candidates for its answer, and which one is better.

The tie rule is stated here once: the higher score wins, among equal scores the earlier candidate.
Only finished candidates compete for the answer while there are any.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.randomness import Key, stream_key
from orchestrator.search.engines import Continuation, Ids

UNSCORED = float("-inf")  # what was never scored loses to whatever was
NOT_A_NUMBER = "the reward model's score is NaN or infinite"


class PromptFailed(Exception):
    """One prompt cannot be answered, by a fault of its own; the text is the reason.

    The reason is one of few, without the prompt's own content. A backend gives it in the place of
    a request's answer, or an engine raises it for a request; the other prompts go on.
    """


@dataclass(frozen=True)
class Candidate:
    """A response or the beginning of one; the default is the empty beginning.

    ``token_ids`` are the response's without its end token, ``finished`` says whether that token
    was drawn, ``step_scores`` are the scores of what was kept on the way, the last one ``score``.
    """

    token_ids: Ids = ()
    finished: bool = False
    score: float = UNSCORED
    step_scores: tuple[float, ...] = ()

    def extended(self, continuation: Continuation, score: float) -> "Candidate":
        """This candidate with a continuation, whose whole has the given score."""
        return Candidate(
            self.token_ids + continuation.token_ids,
            continuation.finished,
            score,
            (*self.step_scores, score),
        )


@dataclass(frozen=True)
class Problem:
    """A prompt in the policy's token ids, to be answered in at most ``max_new_tokens``.

    ``reward_prompt_ids`` are the reward model's own ids of it, where its template is another.
    """

    prompt_id: str
    prompt_ids: Ids
    seed: int
    max_new_tokens: int
    reward_prompt_ids: Ids | None = None

    @property
    def scored_prompt_ids(self) -> Ids:
        """The prompt as the reward model is asked about it."""
        return self.prompt_ids if self.reward_prompt_ids is None else self.reward_prompt_ids

    def key(self, *purpose: Key) -> int:
        """The random stream for one purpose (method, step, candidate, ...) on this prompt."""
        return stream_key(self.seed, self.prompt_id, *purpose)

    def room(self, candidate: Candidate) -> int:
        """How many tokens the candidate may still grow by: none once it is finished."""
        return 0 if candidate.finished else self.max_new_tokens - len(candidate.token_ids)


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates from the best to the worst, equal scores in the order in which they came."""
    return sorted(candidates, key=lambda candidate: candidate.score, reverse=True)


def gap(order: Sequence[Candidate], count: int) -> float:
    """How near the choice of the first ``count`` of some ranked candidates was.

    The least difference of score between one of them and the next one of another text: what is
    kept is also told apart by its place, on which its random streams depend. Infinite where nothing
    was decided.
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
    """Those that the answer is among: the finished ones, or all where none is finished."""
    return [candidate for candidate in candidates if candidate.finished] or list(candidates)
