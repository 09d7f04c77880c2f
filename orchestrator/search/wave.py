"""Collects the requests of many problems and sends them to the engines once all problems wait.

The engines answer what they have, not a batch as a whole: a problem whose answers are there goes on
while others still wait for theirs. What is asked together depends on the requests and on what the
engines answer together, never on how long a coroutine takes. Knows neither methods nor models.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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

Kind = Literal["sample", "top", "score"]


@dataclass(frozen=True, eq=False)
class Question:
    """A request of the problem at ``index``, with the future on which it waits."""

    index: int
    kind: Kind
    request: Any
    answer: asyncio.Future[Any]


Answers = Sequence[tuple[Question, Any]]


class Backend(Protocol):
    """What answers the questions of one wave."""

    async def answers(self, asked: list[Question]) -> Answers:
        """Takes questions, then waits until some of all that were taken are answered.

        Called repeatedly while any question is unanswered, never concurrently. A question that
        fails alone gets a PromptFailed for an answer. May return nothing after ``wake``.
        """

    def wake(self) -> None:
        """There are new questions: ``answers`` is to return soon and be called with them."""

    def drop(self) -> None:
        """No open question is waited for any longer."""


class Wave:
    """Collects the questions of the problems and has them answered.

    Args:
        backend: answers what the problems ask.
        clock: of all waves that run at once.
    """

    def __init__(self, backend: Backend, clock: SharedTime) -> None:
        self._backend, self._clock = backend, clock
        self._open: dict[int, set[Question]] = {}  # of each live problem
        self._running: set[int] = set()  # live problems without an open question
        self._seconds: dict[int, float] = {}
        self._new: list[Question] = []
        self._all_wait = asyncio.Event()

    @property
    def live(self) -> int:
        """Problems that have begun and not ended."""
        return len(self._open)

    def join(self, index: int) -> None:
        """A problem begins: nothing new is handed to the engines before it asks or ends."""
        self._open[index] = set()
        self._running.add(index)
        self._check()

    def ask(self, index: int, kind: Kind, request: Any) -> asyncio.Future[Any]:
        """The answer to one request of a problem, to be waited for.

        No coroutine: methods ask for many at once, and each would be a task.
        """
        if index not in self._open:
            raise PromptFailed("it has ended")  # what a failed problem asked for besides
        question = Question(index, kind, request, asyncio.get_running_loop().create_future())
        self._open[index].add(question)
        self._new.append(question)
        self._running.discard(index)
        self._check()
        return question.answer

    def leave(self, index: int, following: int | None = None) -> float:
        """Ends a problem and returns its seconds; the problem ``following`` takes its place."""
        for question in self._open.pop(index):
            question.answer.cancel()
        self._running.discard(index)
        if following is not None:
            self.join(following)
        self._check()
        return self._seconds.pop(index, 0.0)

    async def serve(self) -> None:
        """Answers questions until no problem is left.

        What a problem asks at once (``asyncio.gather``) is asked in one turn of the event loop,
        and this coroutine wakes in the next turn: it never sees a part of it.
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
            asked = [one for one in self._new if not one.answer.cancelled()]
            self._new = []
            if not self._open:
                return
            answers = await self._backend.answers(sorted(asked, key=lambda one: one.index))
            now = self._clock.spent()
            for index in self._open:
                share = (now - began) / len(self._open)
                self._seconds[index] = self._seconds.get(index, 0.0) + share
            began = now
            self._give(answers)

    def _give(self, answers: Answers) -> None:
        for question, answer in answers:
            if question.answer.done():
                continue  # of a problem that has failed meanwhile
            if isinstance(answer, PromptFailed):
                question.answer.set_exception(answer)
            else:
                question.answer.set_result(answer)
            waiting = self._open[question.index]
            waiting.discard(question)
            if not waiting or isinstance(answer, PromptFailed):
                self._running.add(question.index)
        self._check()

    def fail(self, error: Exception) -> None:
        """Raises an error that has ended ``serve`` in every problem that waits for an answer."""
        for index, waiting in self._open.items():
            for question in waiting:
                if not question.answer.done():
                    question.answer.set_exception(error)
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


class WaveEngines:
    """The policy and the reward engine as the problem at ``index`` sees them."""

    def __init__(self, wave: Wave, index: int) -> None:
        self._wave, self._index = wave, index

    def sample(self, request: SampleRequest) -> Awaitable[Sampled]:
        """Continuations of one prefix."""
        return self._wave.ask(self._index, "sample", request)

    def top(self, request: TopRequest) -> Awaitable[TopTokens]:
        """Likeliest next tokens of one prefix."""
        return self._wave.ask(self._index, "top", request)

    def score(self, request: ScoreRequest) -> Awaitable[Scored]:
        """Scores of one prefix's extensions."""
        return self._wave.ask(self._index, "score", request)


async def together(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """All results in order; the first exception cancels the others, waits for them, is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
