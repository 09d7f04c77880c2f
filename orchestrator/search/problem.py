"""What a search works on: a prompt to answer, candidates for its answer, and which one is better.

The tie rule is stated here once: the higher score wins, among equal scores the earlier candidate.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.randomness import Key, stream_key
from orchestrator.search.engines import Continuation, Ids

UNSCORED = float("-inf")  # what was never scored loses to whatever was


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
            continuation.stop == "end",
            score,
            (*self.step_scores, score),
        )


@dataclass(frozen=True)
class Problem:
    """A prompt in the policy's token ids, to be answered in at most ``max_new_tokens``."""

    prompt_id: str
    prompt_ids: Ids
    seed: int
    max_new_tokens: int

    def key(self, *purpose: Key) -> int:
        """The random stream for one purpose (method, step, candidate, ...) on this prompt."""
        return stream_key(self.seed, self.prompt_id, *purpose)

    def room(self, candidate: Candidate) -> int:
        """How many tokens the candidate may still grow by: none once it is finished."""
        return 0 if candidate.finished else self.max_new_tokens - len(candidate.token_ids)


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates from the best to the worst, equal scores in the order in which they came."""
    return sorted(candidates, key=lambda candidate: candidate.score, reverse=True)


def best_finished(candidates: Sequence[Candidate]) -> Candidate:
    """The best finished candidate or, where none is finished, the best of all."""
    finished = [candidate for candidate in candidates if candidate.finished]
    return ranked(finished or candidates)[0]
