"""The backend of a batcher with a policy and a scorer in this process."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch

from orchestrator.decoding.bisect import answer_bisecting, failure_reason
from orchestrator.engines.continuous import ContinuousPolicy
from orchestrator.scorers.scorer import Scorer
from orchestrator.search.batcher import Answers, Kind, PendingRequest
from orchestrator.search.engines import Sampled, SampleRequest, TopRequest, TopTokens


class PolicyEngine(ContinuousPolicy, Protocol):
    """A policy, such as HuggingFacePolicy."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Draw the continuations of all requests; no others may be in progress."""

    def top_next_tokens(self, requests: Sequence[TopRequest]) -> list[TopTokens]:
        """Return the likeliest next tokens of all requests; answer i is of request i."""

    def clear_cache(self) -> None:
        """Clear the caches."""


Loaded = tuple[PolicyEngine, Scorer | None]


class ModelBackend:
    """Runs both models in a thread, so that the event loop is not blocked.

    All samples in progress share one batch, whenever they were requested; a prompt is scored when
    its samples are finished. Scores have priority, since prompts wait for them, then likeliest
    tokens, then one token of every sample in progress. The answer to a request that fails by itself
    is a PromptFailed.

    Args:
        load: returns the policy, and the scorer or None.
        threads: number of torch threads; None: unchanged.
    """

    def __init__(self, load: Callable[[], Loaded], threads: int | None = None) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")
        if threads is not None:
            self._thread.submit(torch.set_num_threads, threads).result()
        self.policy, self.scorer = self._thread.submit(load).result()
        self._waiting: dict[Kind, list[PendingRequest]] = {"score": [], "top": [], "sample": []}
        self._active: dict[int, PendingRequest] = {}  # keyed by the policy's request ids
        self._woken = False

    async def clear_cache(self) -> None:
        """Clear the caches, so that a search's cost does not depend on earlier searches."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self.policy.clear_cache)
        if self.scorer is not None:
            await loop.run_in_executor(self._thread, self.scorer.clear_cache)

    def close(self) -> None:
        """End the thread and release the models."""
        self._thread.shutdown(wait=False)

    async def answers(self, requests: list[PendingRequest]) -> Answers:
        """See ``Backend.answers``."""
        if self.scorer is None and any(pending.kind == "score" for pending in requests):
            raise ValueError("a score request, but there is no reward model")
        self._woken = False
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, requests)

    def wake(self) -> None:
        """Make ``answers`` return after the next token, to accept new requests."""
        self._woken = True

    def drop(self) -> None:
        """Drop all requests."""
        self._thread.submit(self._drop)

    def _drop(self) -> None:
        self.policy.abort()
        self._active.clear()
        for waiting in self._waiting.values():
            waiting.clear()

    def _work(self, requests: list[PendingRequest]) -> Answers:
        for pending in requests:
            self._waiting[pending.kind].append(pending)
        if batch := self._pop("score"):
            assert self.scorer is not None
            return _answer(batch, self.scorer.score, self.scorer.clear_cache)
        if batch := self._pop("top"):
            return _answer(batch, self.policy.top_next_tokens, self.policy.clear_cache)
        batch = self._pop("sample")
        try:
            ids = self.policy.add([pending.request for pending in batch])
            self._active.update(zip(ids, batch, strict=True))
            batch = []
            while self._active:
                done = self.policy.step()
                if done or self._woken:
                    return [(self._active.pop(request_id), done[request_id]) for request_id in done]
        except Exception as error:
            if failure_reason(error) is None:
                raise
            # Bisect for the failing request. Keyed draws reproduce each sample's text.
            batch = [*self._active.values(), *batch]
            self._active.clear()
            self.policy.abort()
            self.policy.clear_cache()
            return _answer(batch, self.policy.sample, self.policy.clear_cache)
        return []

    def _pop(self, kind: Kind) -> list[PendingRequest]:
        """Pop the waiting requests of a kind, without cancelled ones."""
        waiting, self._waiting[kind] = self._waiting[kind], []
        return [pending for pending in waiting if not pending.answer.cancelled()]


def _answer(
    batch: Sequence[PendingRequest],
    answer: Callable[[list[Any]], Sequence[Any]],
    clear_cache: Callable[[], None],
) -> Answers:
    requests = [pending.request for pending in batch]
    return list(zip(batch, answer_bisecting(answer, requests, clear_cache), strict=True))
