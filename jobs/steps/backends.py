"""The policy and reward actors as the library's search asks for them: batches, shared out evenly.

Each actor computes with its share of the cores: on a CPU two processes of one thread each are
faster than one of two.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from actors.policy import PolicyPlace
from actors.reward import RewardPlace
from jobs.steps.sweep import Sweep
from orchestrator.records import Prompt
from orchestrator.scorers.registry import chat_of
from orchestrator.scorers.scorer import Position
from orchestrator.search.engines import (
    Ids,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)

WHOLE = 10**6  # a cut past every response: the whole of it


class ActorPolicy:
    """The policy actors as a search backend."""

    def __init__(self, sweep: Sweep) -> None:
        decoding = sweep.config.decoding
        self._actors = sweep.policy_actors()
        self._place = PolicyPlace(
            sweep.checkpoint("policy"), decoding.temperature, decoding.top_p, sweep.device,
            sweep.threads(len(self._actors)),
        )  # fmt: skip

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        """Draws the continuations of all requests."""
        return await _shared_out(
            self._actors, requests, lambda actor, share: actor.sample.remote(self._place, share)
        )

    async def top(self, requests: list[TopRequest]) -> list[TopTokens]:
        """Gives the likeliest next tokens of all requests."""
        return await _shared_out(
            self._actors, requests, lambda actor, share: actor.top.remote(self._place, share)
        )

    async def log_probs(self, texts: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Log pi(y | x) in nats of whole responses (x, y)."""
        return await _shared_out(
            self._actors, texts, lambda actor, share: actor.log_probs.remote(self._place, share)
        )


class ActorReward:
    """The reward actors as a search backend, and as a scorer of prefixes.

    ``prompts`` gives the reward model's own prompt ids for the policy's: their templates differ.
    """

    def __init__(self, sweep: Sweep, scorer: str, prompts: dict[Ids, Ids] | None = None) -> None:
        self._actors, self._prompts = sweep.reward_actors(), prompts or {}
        self.chat = chat_of(sweep.scorer(scorer))
        self._place = RewardPlace(
            sweep.scorer(scorer), sweep.config.scoring.position,
            sweep.checkpoint("policy"), sweep.device, sweep.threads(len(self._actors)),
        )  # fmt: skip

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        """Scores all requests."""
        own = [replace(r, prompt_ids=self._prompts[r.prompt_ids]) for r in requests]
        return await _shared_out(
            self._actors, own, lambda actor, share: actor.score.remote(self._place, share)
        )

    async def prefix_scores(
        self,
        texts: Sequence[tuple[Prompt, str]],
        cuts: Sequence[int],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """r(x, y_<t) of responses given as texts, for each t of ``cuts`` (past the end: all).

        Without ``positions`` in the config's; with several, all cuts of one after the other.
        """
        rows = [
            (self.chat.prompt_ids(prompt.messages), self.chat.response_ids(text))
            for prompt, text in texts
        ]
        return await _shared_out(
            self._actors,
            rows,
            lambda actor, share: actor.prefix_scores.remote(
                self._place,
                [x for x, _ in share],
                [y for _, y in share],
                [cuts] * len(share),
                positions,
            ),
        )


async def _shared_out(
    actors: Sequence[Any], items: Sequence[Any], call: Callable[[Any, Sequence[Any]], Any]
) -> list[Any]:
    """Each actor's answers to its contiguous, nearly equal share of ``items``, in their order."""
    size = -(-len(items) // len(actors)) or 1
    shares = [items[i : i + size] for i in range(0, len(items), size)]
    calls = (call(actor, share) for actor, share in zip(actors, shares, strict=False))
    return [answer for part in await asyncio.gather(*calls) for answer in part]
