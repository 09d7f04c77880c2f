"""Questions of many problems, collected and sent to the engines as one batch.

A batch is sent when every problem of a wave waits for an answer, so that batches depend on the
requests alone, never on timing. Knows neither methods nor what stands behind a backend.
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


class PolicyBackend(Protocol):
    """A policy that answers batches; answer i belongs to request i.

    A request that cannot be answered by a fault of its own may have a PromptFailed for an answer.
    """

    async def sample(self, requests: list[SampleRequest]) -> Sequence[Sampled | PromptFailed]:
        """Draws the continuations of all requests."""

    async def top(self, requests: list[TopRequest]) -> Sequence[TopTokens | PromptFailed]:
        """Gives the likeliest next tokens of all requests."""


class RewardBackend(Protocol):
    """A reward model that answers batches; answer i belongs to request i, as of a policy's."""

    async def score(self, requests: list[ScoreRequest]) -> Sequence[Scored | PromptFailed]:
        """Scores all requests."""


@dataclass(frozen=True)
class _Question:
    """A request of the problem at ``index``, with the future on which it waits."""

    index: int
    kind: Kind
    request: Any
    answer: asyncio.Future[Any]


class Wave:
    """Collects the questions of the problems and has them answered together.

    Args:
        policy: answers batches of samples and of likeliest tokens.
        reward: answers batches of scores; None where no method asks for any.
        clock: of all waves that run at once.
    """

    def __init__(
        self, policy: PolicyBackend, reward: RewardBackend | None, clock: SharedTime
    ) -> None:
        self._clock = clock
        self._backends: dict[Kind, Any] = {"sample": policy.sample, "top": policy.top}
        if reward is not None:
            self._backends["score"] = reward.score
        self._live: set[int] = set()
        self._seconds: dict[int, float] = {}
        self._waiting: set[int] = set()
        self._questions: list[_Question] = []
        self._sent: list[_Question] = []
        self._all_wait = asyncio.Event()

    @property
    def live(self) -> int:
        """Problems that have begun and not ended."""
        return len(self._live)

    def join(self, index: int) -> None:
        """A problem begins: batches wait for it from now on."""
        self._live.add(index)

    def ask(self, index: int, kind: Kind, request: Any) -> asyncio.Future[Any]:
        """The answer to one request of a problem, to be waited for.

        No coroutine: methods ask for many at once, and each would be a task.
        """
        if kind not in self._backends:
            raise ValueError(f"a {kind} request, but this wave has no backend for it")
        if index not in self._live:
            raise PromptFailed("it has ended")  # what a failed problem asked for besides
        answer = asyncio.get_running_loop().create_future()
        self._questions.append(_Question(index, kind, request, answer))
        self._waiting.add(index)
        self._check()
        return answer

    def leave(self, index: int, following: int | None = None) -> float:
        """A problem is done, its share of the time so far; the others wait for the next instead."""
        self._live.discard(index)
        if following is not None:
            self._live.add(following)
        self._check()
        return self._seconds.pop(index, 0.0)

    async def serve(self) -> None:
        """Answers batch after batch until no problem is left.

        What a problem asks at once (``asyncio.gather``) is asked in one turn of the event loop,
        and this coroutine wakes in the next turn: it never sees a part of it.
        """
        self._clock.change(1)
        try:
            await self._serve()
        finally:
            self._clock.change(-1)

    async def _serve(self) -> None:
        began = self._clock.spent()
        while self._live:
            await self._all_wait.wait()
            self._all_wait.clear()
            self._waiting.clear()
            self._sent, self._questions = self._questions, []
            answers = await self._answers(sorted(self._sent, key=lambda question: question.index))
            now = self._clock.spent()
            for index in self._live:
                share = (now - began) / len(self._live)
                self._seconds[index] = self._seconds.get(index, 0.0) + share
            began = now
            for question, answer in answers:
                if isinstance(answer, PromptFailed):
                    question.answer.set_exception(answer)
                else:
                    question.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Raises an error that has ended ``serve`` in every problem that waits for an answer."""
        for question in (*self._sent, *self._questions):
            if not question.answer.done():
                question.answer.set_exception(error)
        self._sent, self._questions = [], []
        self._waiting.clear()

    def _check(self) -> None:
        if self._live <= self._waiting:
            self._all_wait.set()

    async def _answers(self, questions: list[_Question]) -> list[tuple[_Question, Any]]:
        """Sends the batch of each kind, all kinds at once; the answers, to be given together."""
        kinds: dict[Kind, list[_Question]] = {}
        for question in questions:
            kinds.setdefault(question.kind, []).append(question)
        answers = await together(self._send(kind, batch) for kind, batch in kinds.items())
        return [
            (question, answer)
            for batch, results in zip(kinds.values(), answers, strict=True)
            for question, answer in zip(batch, results, strict=True)
        ]

    async def _send(self, kind: Kind, batch: list[_Question]) -> list[Any]:
        answers: list[Any] = await self._backends[kind]([question.request for question in batch])
        if len(answers) != len(batch):
            raise ValueError(
                f"{len(answers)} answers of the backend to {len(batch)} {kind} requests"
            )
        return answers


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
