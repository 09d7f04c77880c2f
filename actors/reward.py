"""The reward actor: scorers behind Ray, one batch per call.

Every call names the scorer, so that a restarted actor answers like the original one. The last few
scorers stay loaded.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import ray
import torch

from orchestrator.choices import Dtype, Position
from orchestrator.conversations.chat import load_chat
from orchestrator.decoding.bisect import answer_bisecting
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.scorer import Scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import Ids, Scored, ScoreRequest
from orchestrator.search.problem import PromptFailed

RESTARTS = 3  # times that Ray restarts the actor and retries its calls
SCORERS_KEPT = 2  # the scorer of a cell, and the ORM that scores every response


@dataclass(frozen=True)
class RewardSpec:
    """A scorer of a policy's responses, and where it runs.

    Attributes:
        scorer: the reward model.
        position: where a prefix is scored.
        policy: checkpoint whose tokenizer made the token ids of requests.
        device: torch device name.
        threads: torch threads.
        dtype: dtype of the weights.
        cache_mib: memory of the KV cache (MiB); None: the engine's default.
    """

    scorer: ScorerSpec
    position: Position
    policy: str
    device: str
    threads: int
    dtype: Dtype = "float32"
    cache_mib: int | None = None


@lru_cache(maxsize=SCORERS_KEPT)
def cached_scorer(spec: RewardSpec) -> Scorer:
    """Return the scorer of a spec; a process keeps the last few that it loaded."""
    chat = load_chat(spec.policy)
    return load_scorer(
        spec.scorer, spec.position, chat, spec.device, spec.dtype, cache_mib=spec.cache_mib
    )


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
class RewardActor:
    """Scores extensions of prefixes, and all prefixes of responses."""

    def pid(self) -> int:
        """Return the id of the actor's process."""
        return os.getpid()

    def score(
        self, spec: RewardSpec, requests: Sequence[ScoreRequest]
    ) -> list[Scored | PromptFailed]:
        """Return the scores of each request; a failed one gets its error."""
        scorer = _scorer(spec)
        return answer_bisecting(scorer.score, requests, scorer.clear_cache)

    def prefix_scores(
        self,
        spec: RewardSpec,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Return r(x, y_<t) for each t of ``cuts[i]``, in each position.

        Token ids are those of the reward model's tokenizer.
        """
        return _scorer(spec).prefix_scores(prompts, responses, cuts, positions)

    def clear_cache(self, spec: RewardSpec) -> None:
        """Clear the KV cache."""
        _scorer(spec).clear_cache()


def _scorer(spec: RewardSpec) -> Scorer:
    torch.set_num_threads(spec.threads)
    return cached_scorer(spec)
