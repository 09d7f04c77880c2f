"""Pools of policy and reward actors as the library's search asks for them: in batches."""

from collections.abc import Sequence
from typing import Any

from actors.policy import PolicyPlace
from actors.pool import Pool
from actors.reward import RewardPlace
from orchestrator.choices import Position
from orchestrator.conversations.chat import Chat
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
from orchestrator.search.problem import PromptFailed


class ActorPolicy:
    """The policy actors as a search backend."""

    def __init__(self, actors: Sequence[Any], place: PolicyPlace) -> None:
        self._pool, self._place = Pool("policy", actors), place

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled | PromptFailed]:
        """Draws the continuations of all requests."""
        return await self._pool.ask(
            requests,
            [request.prompt_ids for request in requests],
            [len(request.keys) * request.max_new_tokens for request in requests],
            lambda actor, share: actor.sample.remote(self._place, share),
        )

    async def drawn(self, requests: list[SampleRequest]) -> list[Sampled]:
        """As ``sample``; a request that fails by itself raises its PromptFailed."""
        found: list[Sampled] = []
        for answer in await self.sample(requests):
            if isinstance(answer, PromptFailed):
                raise answer
            found.append(answer)
        return found

    async def top(self, requests: list[TopRequest]) -> list[TopTokens | PromptFailed]:
        """Gives the likeliest next tokens of all requests."""
        return await self._pool.ask(
            requests,
            [request.prompt_ids for request in requests],
            [1] * len(requests),
            lambda actor, share: actor.top.remote(self._place, share),
        )

    async def log_probs(self, texts: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Log pi(y | x) in nats of whole responses (x, y)."""
        return await self._pool.ask(
            texts,
            list(range(len(texts))),
            [len(x) + len(y) for x, y in texts],
            lambda actor, share: actor.log_probs.remote(self._place, share),
        )


class ActorReward:
    """The reward actors as a search backend, and as a scorer of prefixes.

    ``chat`` is the reward model's own.
    """

    def __init__(self, actors: Sequence[Any], place: RewardPlace, chat: Chat) -> None:
        self._pool, self._place, self.chat = Pool("reward", actors), place, chat

    async def score(self, requests: list[ScoreRequest]) -> list[Scored | PromptFailed]:
        """Scores all requests."""
        return await self._pool.ask(
            requests,
            [request.prompt_ids for request in requests],
            [sum(map(len, request.extensions)) + len(request.extensions) for request in requests],
            lambda actor, share: actor.score.remote(self._place, share),
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
        read = [self.chat.conversation(prompt.messages, text) for prompt, text in texts]
        rows = [(one.prompt_ids, one.response_ids) for one in read]
        return await self._pool.ask(
            rows,
            list(range(len(rows))),
            [len(x) + len(y) for x, y in rows],
            lambda actor, share: actor.prefix_scores.remote(
                self._place,
                [x for x, _ in share],
                [y for _, y in share],
                [cuts] * len(share),
                positions,
            ),
        )
