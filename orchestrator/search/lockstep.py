"""Many problems in lockstep: what all of them ask for goes to the engines as one batch.

A batch is sent when every unfinished problem of a wave waits for an answer, so that batches depend
on the requests alone, never on timing; where a problem ends, the next one takes its place at once.
Knows neither methods nor what stands behind a backend.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import Field, dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from orchestrator.records import Cost
from orchestrator.search.engines import (
    Policy,
    Reward,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.problem import Problem
from orchestrator.search.shared_time import SharedTime

Kind = Literal["sample", "top", "score"]


class PolicyBackend(Protocol):
    """A policy that answers batches; answer i belongs to request i."""

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        """Draws the continuations of all requests."""

    async def top(self, requests: list[TopRequest]) -> list[TopTokens]:
        """Gives the likeliest next tokens of all requests."""


class RewardBackend(Protocol):
    """A reward model that answers batches; answer i belongs to request i."""

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        """Scores all requests."""


class Costed(Protocol):
    """A frozen dataclass with a ``cost``, such as a Response."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def cost(self) -> Cost:
        """What it cost."""


Outcome = TypeVar("Outcome", bound=Costed)
Start = Callable[[Problem, Policy, Reward], Coroutine[Any, Any, Outcome]]


async def run_waves(
    problems: Sequence[Problem],
    start: Start[Outcome],
    policy: PolicyBackend,
    reward: RewardBackend | None,
    *,
    wave_size: int,
    waves_in_flight: int = 2,
    finished: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Runs problems in waves, ``wave_size`` of each at once; outcome i belongs to problem i.

    There are ``waves_in_flight`` of them, so that one may sample while another scores: every
    second problem is the second wave's, and so on. The time in which several run is shared between
    them, so that the seconds of all problems sum up to the wall time.

    Raises:
        Exception: the first one of a method or a backend; all that still runs is cancelled.
    """
    waves = max(1, min(waves_in_flight, -(-len(problems) // wave_size)))
    clock = SharedTime()
    found = await _together(
        _run_wave(
            problems[n::waves], start, _Wave(policy, reward, clock),
            places=wave_size, finished=finished,
        )
        for n in range(waves)
    )  # fmt: skip
    outcomes = {n + i * waves: one for n, own in enumerate(found) for i, one in enumerate(own)}
    return [outcomes[i] for i in range(len(problems))]


async def run_wave(
    problems: Sequence[Problem],
    start: Start[Outcome],
    policy: PolicyBackend,
    reward: RewardBackend | None,
    *,
    places: int | None = None,
    finished: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Runs problems in lockstep; outcome i belongs to problem i.

    Args:
        problems: what to answer.
        start: makes a problem's coroutine, e.g. ``METHODS[name].bind(parameters)``. It may ask for
            several things at once with ``asyncio.gather``; they go into the same batch.
        policy: answers batches of samples and of likeliest tokens.
        reward: answers batches of scores; None where no method asks for any.
        places: how many problems are worked on at once; None is all. A waiting problem takes the
            place of one that ends, and its first requests go into the next batch.
        finished: called with the outcome of each problem as it ends.

    Returns:
        Outcomes whose ``cost.seconds`` grew by each batch's wall time divided by the problems it
        kept waiting: a problem's own time has no meaning, since its requests travel with others'.

    Raises:
        Exception: the first one of a method or a backend; all that still runs is cancelled.
    """
    wave = _Wave(policy, reward, SharedTime())
    return await _run_wave(problems, start, wave, places=places, finished=finished)


async def _run_wave(
    problems: Sequence[Problem],
    start: Start[Outcome],
    wave: "_Wave",
    *,
    places: int | None,
    finished: Callable[[Outcome], None] | None,
) -> list[Outcome]:
    count = len(problems) if places is None else min(places, len(problems))
    wave.begin(count)
    waiting = iter(range(count, len(problems)))
    outcomes: dict[int, Outcome] = {}

    async def run(index: int | None) -> None:
        """One place: problem after problem."""
        while index is not None:
            engines, problem = _Engines(wave, index), problems[index]
            try:
                outcome = await start(problem, engines, engines)
            except Exception as error:
                error.add_note(f"while answering prompt {problem.prompt_id}")
                raise
            following = next(waiting, None)
            share = Cost(seconds=wave.leave(index, following))
            outcomes[index] = replace(outcome, cost=outcome.cost + share)
            if finished is not None:
                finished(outcomes[index])
            index = following

    await _together([wave.serve(), *map(run, range(count))])
    return [outcomes[index] for index in range(len(problems))]


@dataclass(frozen=True)
class _Question:
    """A request of the problem at ``index``, with the future on which it waits."""

    index: int
    kind: Kind
    request: Any
    answer: asyncio.Future[Any]


class _Wave:
    """Collects the questions of the problems and has them answered together."""

    def __init__(
        self, policy: PolicyBackend, reward: RewardBackend | None, clock: SharedTime
    ) -> None:
        self._backends: dict[Kind, Any] = {"sample": policy.sample, "top": policy.top}
        if reward is not None:
            self._backends["score"] = reward.score
        self._clock = clock
        self._live: set[int] = set()
        self._seconds: dict[int, float] = {}
        self._waiting: set[int] = set()
        self._questions: list[_Question] = []
        self._all_wait = asyncio.Event()

    def begin(self, count: int) -> None:
        """There are so many places."""
        self._live = set(range(count))
        self._clock.change(1)

    async def ask(self, index: int, kind: Kind, request: Any) -> Any:
        """Waits for the answer to one request of a problem."""
        if kind not in self._backends:
            raise ValueError(f"a {kind} request, but this wave has no backend for it")
        answer = asyncio.get_running_loop().create_future()
        self._questions.append(_Question(index, kind, request, answer))
        self._waiting.add(index)
        self._check()
        return await answer

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
        began = self._clock.spent()
        while self._live:
            await self._all_wait.wait()
            self._all_wait.clear()
            self._waiting.clear()
            questions, self._questions = self._questions, []
            answers = await self._answers(sorted(questions, key=lambda question: question.index))
            now = self._clock.spent()
            for index in self._live:
                share = (now - began) / len(self._live)
                self._seconds[index] = self._seconds.get(index, 0.0) + share
            began = now
            for question, answer in answers:
                question.answer.set_result(answer)
        self._clock.change(-1)

    def _check(self) -> None:
        if self._live <= self._waiting:
            self._all_wait.set()

    async def _answers(self, questions: list[_Question]) -> list[tuple[_Question, Any]]:
        """Sends the batch of each kind, all kinds at once; the answers, to be given together."""
        kinds: dict[Kind, list[_Question]] = {}
        for question in questions:
            kinds.setdefault(question.kind, []).append(question)
        answers = await _together(self._send(kind, batch) for kind, batch in kinds.items())
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


class _Engines:
    """The policy and the reward engine as the problem at ``index`` sees them."""

    def __init__(self, wave: _Wave, index: int) -> None:
        self._wave, self._index = wave, index

    async def sample(self, request: SampleRequest) -> Sampled:
        sampled: Sampled = await self._wave.ask(self._index, "sample", request)
        return sampled

    async def top(self, request: TopRequest) -> TopTokens:
        top: TopTokens = await self._wave.ask(self._index, "top", request)
        return top

    async def score(self, request: ScoreRequest) -> Scored:
        scored: Scored = await self._wave.ask(self._index, "score", request)
        return scored


async def _together(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """All results in order; the first exception cancels the others, waits for them, is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
