"""The reward actor: Hugging Face reward engines behind Ray, one batch a call.

Every call names the checkpoint, so that an actor that was started again answers as before; the
engines of the last few checkpoints stay loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import ray
import torch

from orchestrator.engines.chat import load_chat
from orchestrator.engines.reward import HuggingFaceReward, Position
from orchestrator.search.engines import Ids, Scored, ScoreRequest

RESTARTS = 3  # times that Ray starts the actor anew; its calls are then made again
ENGINES_KEPT = 2  # the scorer of a cell, and the ORM that rates every response


@dataclass(frozen=True)
class RewardPlace:
    """Which reward model answers, where a prefix is scored, and whose token ids come in."""

    checkpoint: str
    position: Position
    policy: str
    device: str
    threads: int


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
class RewardActor:
    """Scores extensions of prefixes, and all prefixes of responses."""

    def score(self, place: RewardPlace, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Scores all requests."""
        return _engine(place).score(requests)

    def prefix_scores(
        self,
        place: RewardPlace,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """r(x, y_<t) for each t of ``cuts[i]``, in each position; ids are the reward model's."""
        return _engine(place).prefix_scores(prompts, responses, cuts, positions)


@lru_cache(maxsize=ENGINES_KEPT)
def _loaded(checkpoint: str, position: Position, policy: str, device: str) -> HuggingFaceReward:
    return HuggingFaceReward(checkpoint, position, load_chat(policy), device)


def _engine(place: RewardPlace) -> HuggingFaceReward:
    torch.set_num_threads(place.threads)
    return _loaded(place.checkpoint, place.position, place.policy, place.device)
