"""A policy and a scorer of this process as the search's backends."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch

from orchestrator.decoding.apart import each_apart
from orchestrator.scorers.scorer import Scorer
from orchestrator.search.engines import (
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.problem import PromptFailed

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class PolicyEngine(Protocol):
    """A policy that answers batches, such as HuggingFacePolicy; answer i belongs to request i."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Draws the continuations of all requests."""

    def top(self, requests: Sequence[TopRequest]) -> list[TopTokens]:
        """Gives the likeliest next tokens of all requests."""

    def forget(self) -> None:
        """Drops what is kept between batches."""


Loaded = tuple[PolicyEngine, Scorer | None]


class ModelBackend:
    """Loads and asks both models in one thread of its own, so that the event loop stays free.

    A request that cannot be answered by a fault of its own gets a PromptFailed for an answer.

    Args:
        load: gives the policy, and the scorer where there is one.
        threads: of torch; None leaves them as they are.
    """

    def __init__(self, load: Callable[[], Loaded], threads: int | None = None) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")
        if threads is not None:
            self._thread.submit(torch.set_num_threads, threads).result()
        self.policy, self.scorer = self._thread.submit(load).result()

    async def forget(self) -> None:
        """Drops all keys and values: what a search counts does not depend on what ran before."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self.policy.forget)
        if self.scorer is not None:
            await loop.run_in_executor(self._thread, self.scorer.forget)

    def close(self) -> None:
        """Ends the thread; models that nobody else holds go with it."""
        self._thread.shutdown(wait=False)

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled | PromptFailed]:
        """Draws the continuations of all requests."""
        return await self._apart(self.policy.sample, requests, self.policy.forget)

    async def top(self, requests: list[TopRequest]) -> list[TopTokens | PromptFailed]:
        """Gives the likeliest next tokens of all requests."""
        return await self._apart(self.policy.top, requests, self.policy.forget)

    async def score(self, requests: list[ScoreRequest]) -> list[Scored | PromptFailed]:
        """Scores all requests."""
        if self.scorer is None:
            raise ValueError("a score request, but there is no reward model")
        return await self._apart(self.scorer.score, requests, self.scorer.forget)

    async def _apart(
        self,
        answer: Callable[[list[Request]], Sequence[Answer]],
        requests: list[Request],
        forget: Callable[[], None],
    ) -> list[Answer | PromptFailed]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, each_apart, answer, requests, forget)
