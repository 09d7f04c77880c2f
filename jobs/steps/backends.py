"""The policy and reward actors as the library's search asks for them: batches, shared out evenly.

Each actor computes with its share of the cores: on a CPU two processes of one thread each are
faster than one of two.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from actors.policy import PolicyPlace
from actors.reward import RewardPlace
from jobs.steps.sweep import Sweep
from orchestrator.engines.chat import load_chat
from orchestrator.engines.reward import Position
from orchestrator.records import Prompt
from orchestrator.search.engines import (
    Ids,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)

Item = TypeVar("Item")


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
        return await self._shared("sample", requests)

    async def top(self, requests: list[TopRequest]) -> list[TopTokens]:
        """Gives the likeliest next tokens of all requests."""
        return await self._shared("top", requests)

    async def _shared(self, method: str, requests: list[Any]) -> list[Any]:
        shares = zip(self._actors, _shares(requests, len(self._actors)), strict=False)
        return _joined(
            await asyncio.gather(
                *(getattr(actor, method).remote(self._place, share) for actor, share in shares)
            )
        )


class ActorReward:
    """The reward actors as a search backend, and as a scorer of prefixes.

    ``prompts`` gives the reward model's own prompt ids for the policy's: their templates differ.
    """

    def __init__(self, sweep: Sweep, scorer: str, prompts: dict[Ids, Ids] | None = None) -> None:
        self._actors, self._prompts = sweep.reward_actors(), prompts or {}
        self.chat = load_chat(sweep.checkpoint(scorer))
        self._place = RewardPlace(
            sweep.checkpoint(scorer), sweep.config.scoring.position,
            sweep.checkpoint("policy"), sweep.device, sweep.threads(len(self._actors)),
        )  # fmt: skip

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        """Scores all requests."""
        own = [replace(r, prompt_ids=self._prompts[r.prompt_ids]) for r in requests]
        shares = zip(self._actors, _shares(own, len(self._actors)), strict=False)
        return _joined(
            await asyncio.gather(*(a.score.remote(self._place, share) for a, share in shares))
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
        shares = zip(self._actors, _shares(rows, len(self._actors)), strict=False)
        calls = (
            actor.prefix_scores.remote(
                self._place,
                [x for x, _ in share],
                [y for _, y in share],
                [cuts] * len(share),
                positions,
            )
            for actor, share in shares
        )
        return _joined(await asyncio.gather(*calls))


def _shares(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """Contiguous shares of nearly equal size, none empty."""
    size = -(-len(items) // count)
    return [items[i : i + size] for i in range(0, len(items), size)] if size else []


def _joined(parts: Sequence[Sequence[Item]]) -> list[Item]:
    return [item for part in parts for item in part]
