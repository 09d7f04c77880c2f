"""Pools of policy and reward actors as search backends, which answer requests in batches."""

from collections.abc import Sequence

from ray.actor import ActorHandle

from actors.policy import PolicySpec
from actors.pool import Pool
from actors.reward import RewardSpec
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
    """A pool of policy actors as a search backend.

    Args:
        actors: handles of PolicyActor.
        spec: the policy that answers all requests.
    """

    def __init__(self, actors: Sequence[ActorHandle], spec: PolicySpec) -> None:
        self._pool, self._spec = Pool("policy", actors), spec

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled | PromptFailed]:
        """Sample the continuations of each request, or return why the request failed."""
        return await self._pool.map(
            requests,
            [request.prompt_ids for request in requests],
            [len(request.keys) * request.max_new_tokens for request in requests],
            lambda actor, batch: actor.sample.remote(self._spec, batch),
        )

    async def sample_all(self, requests: list[SampleRequest]) -> list[Sampled]:
        """Sample the continuations of each request.

        Raises:
            PromptFailed: a request failed.
        """
        samples: list[Sampled] = []
        for answer in await self.sample(requests):
            if isinstance(answer, PromptFailed):
                raise answer
            samples.append(answer)
        return samples

    async def top_next_tokens(self, requests: list[TopRequest]) -> list[TopTokens | PromptFailed]:
        """Return the most probable next tokens for each request, or why the request failed."""
        return await self._pool.map(
            requests,
            [request.prompt_ids for request in requests],
            [1] * len(requests),
            lambda actor, batch: actor.top_next_tokens.remote(self._spec, batch),
        )

    async def log_probs(self, rows: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Return log pi(y | x) in nats for each (prompt ids x, response ids y)."""
        return await self._pool.map(
            rows,
            list(range(len(rows))),
            [len(x) + len(y) for x, y in rows],
            lambda actor, batch: actor.log_probs.remote(self._spec, batch),
        )


class ActorReward:
    """A pool of reward actors as a search backend and as a scorer of prefixes.

    Args:
        actors: handles of RewardActor.
        spec: the scorer that answers all requests.
        chat: the chat format of the reward model.
    """

    def __init__(self, actors: Sequence[ActorHandle], spec: RewardSpec, chat: Chat) -> None:
        self._pool, self._spec, self.chat = Pool("reward", actors), spec, chat

    async def score(self, requests: list[ScoreRequest]) -> list[Scored | PromptFailed]:
        """Return the scores of each request, or why the request failed."""
        return await self._pool.map(
            requests,
            [request.prompt_ids for request in requests],
            [sum(map(len, request.extensions)) + len(request.extensions) for request in requests],
            lambda actor, batch: actor.score.remote(self._spec, batch),
        )

    async def prefix_scores(
        self,
        responses: Sequence[tuple[Prompt, str]],
        cuts: Sequence[int],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Return the scores r(x, y_<t) of each response at each cut t.

        Args:
            responses: prompts with the text of their response.
            cuts: prefix lengths in tokens; one beyond the end means the complete response.
            positions: scoring positions; empty: that of the spec. With several, each response has
                the scores of all cuts for the first position, then for the second, and so on.
        """
        chats = [self.chat.conversation(prompt.messages, text) for prompt, text in responses]
        rows = [(chat.prompt_ids, chat.response_ids) for chat in chats]
        return await self._pool.map(
            rows,
            list(range(len(rows))),
            [len(x) + len(y) for x, y in rows],
            lambda actor, batch: actor.prefix_scores.remote(
                self._spec,
                [x for x, _ in batch],
                [y for _, y in batch],
                [cuts] * len(batch),
                positions,
            ),
        )
