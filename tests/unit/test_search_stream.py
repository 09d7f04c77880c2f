"""The stream of prompts through search actors, with actors that need no process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import Any

import pytest

from actors.search import Outcome, Search
from actors.search_stream import Growth, stream
from orchestrator.records import Cost, Response
from orchestrator.search.methods.policy_alone import Greedy
from orchestrator.search.problem import Problem

SEARCH = Search(Greedy(), max_concurrent=1)
CAPACITY = 2  # prompts that an actor holds: one that it searches, one that waits


def problems(count: int) -> Iterator[tuple[int, Problem]]:
    return ((number, Problem(f"p{number}", (1,), 0, 4)) for number in range(count))


class Actor:
    """Answers each problem after some seconds; then it may fail."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error, self.answered = seconds, error, 0
        self.run, self.node_and_pid = Call(self.answers), Call(self.process)

    async def answers(
        self, search: Search, batch: Sequence[Problem]
    ) -> AsyncIterator[Awaitable[tuple[int, Outcome]]]:
        for number, problem in enumerate(batch):
            if self.seconds:
                await asyncio.sleep(self.seconds)
            self.answered += 1
            yield answer(number, Response(problem.prompt_id, (1,), "end", None, (), Cost()))
        if self.error is not None:
            raise self.error

    async def process(self) -> tuple[str, int]:
        return "node", 1


class Call:
    """A method of an actor's handle."""

    def __init__(self, function: Any) -> None:
        self.remote = function

    def options(self, **_: object) -> "Call":
        return self


async def answer(number: int, response: Response) -> tuple[int, Outcome]:
    return number, response


def test_outcomes_that_arrive_with_an_error_are_yielded_before_it() -> None:
    received = []

    async def run() -> None:
        actor: Any = Actor(error=ValueError("the engine failed"))
        async for number, _ in stream([actor], SEARCH, problems(CAPACITY + 3)):
            received.append(number)

    with pytest.raises(ValueError, match="the engine failed"):
        asyncio.run(run())
    assert received == list(range(CAPACITY))


@pytest.mark.parametrize(("count", "started"), [(CAPACITY, 0), (CAPACITY + 1, 1)])
def test_a_pool_grows_only_if_a_prompt_waits(count: int, started: int) -> None:
    added: list[Any] = []

    def start() -> Any:
        added.append(Actor())
        return added[-1]

    async def run() -> list[int]:
        growth = Growth(start, max_actors=3, interval=0.001)
        first: Any = Actor(seconds=0.05)
        return [n async for n, _ in stream([first], SEARCH, problems(count), growth=growth)]

    assert sorted(asyncio.run(run())) == list(range(count))
    assert len(added) == started


def test_one_prompt_is_read_ahead() -> None:
    read = []

    def source() -> Iterator[tuple[int, Problem]]:
        for number, problem in problems(9):
            read.append(number)
            yield number, problem

    async def run() -> None:
        actor: Any = Actor(seconds=0.001)
        async for number, _ in stream([actor], SEARCH, source()):
            assert len(read) <= number + CAPACITY + 2

    asyncio.run(run())
    assert read == list(range(9))
