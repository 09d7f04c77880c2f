"""The backend of a batcher for engines that answer a full batch at once."""

from collections.abc import Sequence
from typing import Any, Protocol

from orchestrator.search.batcher import Answers, Kind, PendingRequest, run_together
from orchestrator.search.engines import (
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.problem import PromptFailed


class PolicyBackend(Protocol):
    """A policy that answers batches; answer i is of request i.

    The answer to a request that fails by itself may be a PromptFailed.
    """

    async def sample(self, requests: list[SampleRequest]) -> Sequence[Sampled | PromptFailed]:
        """Draw the continuations of all requests."""

    async def top_next_tokens(
        self, requests: list[TopRequest]
    ) -> Sequence[TopTokens | PromptFailed]:
        """Return the likeliest next tokens of all requests."""


class RewardBackend(Protocol):
    """A reward model that answers batches, as ``PolicyBackend`` does."""

    async def score(self, requests: list[ScoreRequest]) -> Sequence[Scored | PromptFailed]:
        """Score all requests."""


class BatchBackend:
    """Sends the requests as one batch of each kind, all kinds at once, and waits for all answers.

    It has no state, so batchers may share it.

    Args:
        policy: answers batches of samples and of likeliest tokens.
        reward: answers batches of scores; None if no method requests any.
    """

    def __init__(self, policy: PolicyBackend, reward: RewardBackend | None = None) -> None:
        self._backends: dict[Kind, Any] = {"sample": policy.sample, "top": policy.top_next_tokens}
        if reward is not None:
            self._backends["score"] = reward.score

    async def answers(self, requests: list[PendingRequest]) -> Answers:
        """Return the answers to all requests.

        Raises:
            ValueError: there is no backend for a kind of request, or the number of its answers is
                not that of its requests.
        """
        kinds: dict[Kind, list[PendingRequest]] = {}
        for pending in requests:
            kinds.setdefault(pending.kind, []).append(pending)
        for kind in kinds:
            if kind not in self._backends:
                raise ValueError(f"a {kind} request, but there is no backend for it")
        answers = await run_together(self._send(kind, batch) for kind, batch in kinds.items())
        return [
            pair
            for batch, results in zip(kinds.values(), answers, strict=True)
            for pair in zip(batch, results, strict=True)
        ]

    def wake(self) -> None:
        """Do nothing: new requests wait for the current batch."""

    def drop(self) -> None:
        """Do nothing: no request is open between batches."""

    async def _send(self, kind: Kind, batch: list[PendingRequest]) -> list[Any]:
        answers: list[Any] = await self._backends[kind]([pending.request for pending in batch])
        if len(answers) != len(batch):
            raise ValueError(
                f"the backend returned {len(answers)} answers to {len(batch)} {kind} requests"
            )
        return answers
