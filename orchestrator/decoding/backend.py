"""A policy and a scorer of this process as the backend of a batcher."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch

from orchestrator.decoding.bisect import each_apart, own_fault
from orchestrator.engines.continuous import ContinuousPolicy
from orchestrator.scorers.scorer import Scorer
from orchestrator.search.batcher import Answers, Kind, PendingRequest
from orchestrator.search.engines import Sampled, SampleRequest, TopRequest, TopTokens


class PolicyEngine(ContinuousPolicy, Protocol):
    """A policy, such as HuggingFacePolicy."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Draws the continuations of all requests, while no others are under way."""

    def top(self, requests: Sequence[TopRequest]) -> list[TopTokens]:
        """Gives the likeliest next tokens of all requests; answer i belongs to request i."""

    def forget(self) -> None:
        """Drops what is kept between batches."""


Loaded = tuple[PolicyEngine, Scorer | None]


class ModelBackend:
    """Loads and asks both models in one thread of its own, so that the event loop stays free.

    All samples in progress share one batch, whenever they were asked for; a prompt is scored when
    its own are finished. Scores are computed first, for they let prompts go on, then likeliest
    tokens, then a token of every sample in progress. A request that fails by itself gets
    a PromptFailed as its answer.

    Args:
        load: gives the policy, and the scorer where there is one.
        threads: of torch; None leaves them as they are.
    """

    def __init__(self, load: Callable[[], Loaded], threads: int | None = None) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")
        if threads is not None:
            self._thread.submit(torch.set_num_threads, threads).result()
        self.policy, self.scorer = self._thread.submit(load).result()
        self._waiting: dict[Kind, list[PendingRequest]] = {"score": [], "top": [], "sample": []}
        self._under_way: dict[int, PendingRequest] = {}  # by the policy's numbers
        self._news = False

    async def forget(self) -> None:
        """Drops all keys and values: what a search counts does not depend on what ran before."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self.policy.forget)
        if self.scorer is not None:
            await loop.run_in_executor(self._thread, self.scorer.forget)

    def close(self) -> None:
        """Ends the thread; models that nobody else holds go with it."""
        self._thread.shutdown(wait=False)

    async def answers(self, requests: list[PendingRequest]) -> Answers:
        """See ``Backend.answers``."""
        if self.scorer is None and any(pending.kind == "score" for pending in requests):
            raise ValueError("a score request, but there is no reward model")
        self._news = False
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, requests)

    def wake(self) -> None:
        """Returns from sampling after the next token, to take new requests."""
        self._news = True

    def drop(self) -> None:
        """Forgets all requests."""
        self._thread.submit(self._drop)

    def _drop(self) -> None:
        self.policy.abort()
        self._under_way.clear()
        for waiting in self._waiting.values():
            waiting.clear()

    def _work(self, requests: list[PendingRequest]) -> Answers:
        for pending in requests:
            self._waiting[pending.kind].append(pending)
        if taken := self._taken("score"):
            assert self.scorer is not None
            return _answered(taken, self.scorer.score, self.scorer.forget)
        if taken := self._taken("top"):
            return _answered(taken, self.policy.top, self.policy.forget)
        taken = self._taken("sample")
        try:
            numbers = self.policy.add([pending.request for pending in taken])
            self._under_way.update(zip(numbers, taken, strict=True))
            taken = []
            while self._under_way:
                done = self.policy.step()
                if done or self._news:
                    return [(self._under_way.pop(number), done[number]) for number in done]
        except Exception as error:
            if own_fault(error) is None:
                raise
            # Whose fault is it? Keyed draws give each sample the same text once more.
            taken = [*self._under_way.values(), *taken]
            self._under_way.clear()
            self.policy.abort()
            self.policy.forget()
            return _answered(taken, self.policy.sample, self.policy.forget)
        return []

    def _taken(self, kind: Kind) -> list[PendingRequest]:
        """The waiting requests of a kind whose searches still wait for them."""
        found, self._waiting[kind] = self._waiting[kind], []
        return [pending for pending in found if not pending.answer.cancelled()]


def _answered(
    taken: Sequence[PendingRequest],
    answer: Callable[[list[Any]], Sequence[Any]],
    forget: Callable[[], None],
) -> Answers:
    requests = [pending.request for pending in taken]
    return list(zip(taken, each_apart(answer, requests, forget), strict=True))
