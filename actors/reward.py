"""The reward actor: scorers behind Ray, one batch a call.

Every call names the scorer, so that an actor that was started again answers as before; the last
few stay loaded.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import ray
import torch

from orchestrator.choices import Dtype, Position
from orchestrator.conversations.chat import load_chat
from orchestrator.decoding.bisect import each_apart
from orchestrator.scorers.registry import load_scorer
from orchestrator.scorers.scorer import Scorer, ScorerSpec
from orchestrator.search.engines import Ids, Scored, ScoreRequest
from orchestrator.search.problem import PromptFailed

RESTARTS = 3  # times that Ray starts the actor anew; its calls are then made again
SCORERS_KEPT = 2  # the scorer of a cell, and the ORM that rates every response


@dataclass(frozen=True)
class RewardPlace:
    """Which reward model answers, where a prefix is scored, and whose token ids come in."""

    scorer: ScorerSpec
    position: Position
    policy: str
    device: str
    threads: int
    dtype: Dtype = "float32"
    cache_mib: int | None = None  # of keys and values; None is the engine's default


@lru_cache(maxsize=SCORERS_KEPT)
def scorer_at(place: RewardPlace) -> Scorer:
    """The scorer of a place; a process keeps the last few that it loaded."""
    chat = load_chat(place.policy)
    return load_scorer(
        place.scorer, place.position, chat, place.device, place.dtype, cache_mib=place.cache_mib
    )


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
class RewardActor:
    """Scores extensions of prefixes, and all prefixes of responses."""

    def process(self) -> int:
        """The number of its process."""
        return os.getpid()

    def score(
        self, place: RewardPlace, requests: Sequence[ScoreRequest]
    ) -> list[Scored | PromptFailed]:
        """Scores all requests; one that fails by itself has its fault for an answer."""
        scorer = _scorer(place)
        return each_apart(scorer.score, requests, scorer.forget)

    def prefix_scores(
        self,
        place: RewardPlace,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """r(x, y_<t) for each t of ``cuts[i]``, in each position; ids are the reward model's."""
        return _scorer(place).prefix_scores(prompts, responses, cuts, positions)

    def forget(self, place: RewardPlace) -> None:
        """Drops the keys and values that are kept."""
        _scorer(place).forget()


def _scorer(place: RewardPlace) -> Scorer:
    torch.set_num_threads(place.threads)
    return scorer_at(place)
