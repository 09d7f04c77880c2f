"""Batching of many searches' requests, which are sent to the engines once all searches wait.

Engines may return answers before a batch is complete: a search continues with its answers while
others wait. Which requests form a batch depends on the requests and answers, never on how long a
coroutine takes. Independent of methods and models.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from orchestrator.search.engines import (
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.problem import PromptFailed
from orchestrator.search.shared_time import SharedTime

ResultT = TypeVar("ResultT")
Request = SampleRequest | TopRequest | ScoreRequest
Kind = Literal["sample", "top", "score"]


@dataclass(frozen=True, eq=False)
class PendingRequest:
    """A request of the search ``index``, with the future of its answer."""

    index: int
    kind: Kind
    request: Any  # its type depends on the kind
    answer: asyncio.Future[Any]


Answers = Sequence[tuple[PendingRequest, Any]]


class Backend(Protocol):
    """The engines behind one batcher."""

    async def answers(self, requests: list[PendingRequest]) -> Answers:
        """Accept requests, then return the answers to some of all accepted ones.

        Called repeatedly while any request is unanswered, never concurrently. The answer to a
        request that fails by itself is a PromptFailed. May return nothing after ``wake``.
        """

    def wake(self) -> None:
        """Make ``answers`` return soon: there are new requests for it."""

    def drop(self) -> None:
        """Drop all requests: no answers are needed."""


class Batcher:
    """Collects the requests of searches and sends them to a backend.

    Args:
        backend: answers the requests.
        clock: wall time, shared by all batchers that run at once.
    """

    def __init__(self, backend: Backend, clock: SharedTime) -> None:
        self._backend, self._clock = backend, clock
        self._open: dict[int, set[PendingRequest]] = {}  # open requests of each live search
        self._running: set[int] = set()  # live searches without an open request
        self._seconds: dict[int, float] = {}
        self._new: list[PendingRequest] = []
        self._all_wait = asyncio.Event()

    @property
    def live(self) -> int:
        """Searches that have started and not ended."""
        return len(self._open)

    def join(self, index: int) -> None:
        """Start a search: nothing new is sent to the engines before it requests or ends."""
        self._open[index] = set()
        self._running.add(index)
        self._check()

    def submit(self, index: int, kind: Kind, request: Request) -> asyncio.Future[Any]:
        """Submit a request of a search; return the future of its answer.

        Not a coroutine, as methods submit many requests at once and each would be a task.
        """
        if index not in self._open:
            raise PromptFailed("its search has ended")  # another of its requests has failed
        pending = PendingRequest(index, kind, request, asyncio.get_running_loop().create_future())
        self._open[index].add(pending)
        self._new.append(pending)
        self._running.discard(index)
        self._check()
        return pending.answer

    def leave(self, index: int, following: int | None = None) -> float:
        """End a search and return its seconds; start the search ``following``, if any."""
        for pending in self._open.pop(index):
            pending.answer.cancel()
        self._running.discard(index)
        if following is not None:
            self.join(following)
        self._check()
        return self._seconds.pop(index, 0.0)

    async def serve(self) -> None:
        """Serve requests until no search is left.

        All requests of one ``asyncio.gather`` are submitted in one turn of the event loop, and this
        coroutine wakes in the next turn, so they are in one batch.
        """
        self._clock.change(1)
        try:
            await self._serve()
        except BaseException:
            self._backend.drop()
            raise
        finally:
            self._clock.change(-1)

    async def _serve(self) -> None:
        began = self._clock.spent()
        while self._open:
            await self._all_wait.wait()
            requests = [pending for pending in self._new if not pending.answer.cancelled()]
            self._new = []
            if not self._open:
                return
            requests.sort(key=lambda pending: pending.index)
            answers = await self._backend.answers(requests)
            now = self._clock.spent()
            for index in self._open:
                share = (now - began) / len(self._open)
                self._seconds[index] = self._seconds.get(index, 0.0) + share
            began = now
            self._deliver(answers)

    def _deliver(self, answers: Answers) -> None:
        for pending, answer in answers:
            if pending.answer.done():
                continue  # its search has failed
            if isinstance(answer, PromptFailed):
                pending.answer.set_exception(answer)
            else:
                pending.answer.set_result(answer)
            waiting = self._open[pending.index]
            waiting.discard(pending)
            if not waiting or isinstance(answer, PromptFailed):
                self._running.add(pending.index)
        self._check()

    def fail(self, error: Exception) -> None:
        """Raise an error of ``serve`` in every search that waits for an answer."""
        for index, waiting in self._open.items():
            for pending in waiting:
                if not pending.answer.done():
                    pending.answer.set_exception(error)
            waiting.clear()
            self._running.add(index)
        self._new = []
        self._check()

    def _check(self) -> None:
        if self._running:
            self._all_wait.clear()
        else:
            self._all_wait.set()
            if self._new:
                self._backend.wake()


class BatchingEngines:
    """The policy and the reward engine of the search ``index``."""

    def __init__(self, batcher: Batcher, index: int) -> None:
        self._batcher, self._index = batcher, index

    def sample(self, request: SampleRequest) -> Awaitable[Sampled]:
        """Return continuations of one prefix."""
        return self._batcher.submit(self._index, "sample", request)

    def top_next_tokens(self, request: TopRequest) -> Awaitable[TopTokens]:
        """Return the likeliest next tokens of one prefix."""
        return self._batcher.submit(self._index, "top", request)

    def score(self, request: ScoreRequest) -> Awaitable[Scored]:
        """Return scores of one prefix's extensions."""
        return self._batcher.submit(self._index, "score", request)


async def run_together(coroutines: Iterable[Coroutine[object, object, ResultT]]) -> list[ResultT]:
    """Return all results in order; the first exception cancels the others and is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
