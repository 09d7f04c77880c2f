"""Any number of prompts through a pool of search actors: given as there is room, told as they end.

An actor has as many prompts as it works on at once, and as many again that wait there, so that a
place that becomes free is taken at once; further prompts are not read before. Ray starts an actor
that died again; what it had not answered goes to the others meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayActorError, RayError

from actors.health import Health, watch
from actors.pool import PoolIsDead
from actors.search import Outcome, Search
from orchestrator.records import Response
from orchestrator.search.problem import Problem, PromptFailed

WAITING = 1.0  # prompts that wait in an actor, for each that it works on
Item = TypeVar("Item")


@dataclass(frozen=True)
class Growth:
    """A pool that grows while prompts wait for a place in it.

    ``start`` makes a further actor, up to ``most`` in all. One at a time is waited for: where no
    machine has room, it is what Ray's autoscaler adds one for.
    """

    start: Callable[[], Any]
    most: int
    every: float = 2.0  # seconds between looks at the pool


async def stream(
    actors: Sequence[Any],
    search: Search,
    items: Iterable[tuple[Item, Problem]],
    health: Health | None = None,
    said: Callable[[str], None] | None = None,
    growth: Growth | None = None,
) -> AsyncIterator[tuple[Item, Outcome]]:
    """Gives the outcome of each problem with its item, in the order in which they end.

    Args:
        actors: handles of SearchActor.
        search: the method, and how many problems an actor works on at once.
        items: anything, with its problem; read as there is room.
        health: how hanging actors are found; None is the default.
        said: called with a sentence where an actor is ended because it hangs, or is added.
        growth: how the pool grows; None leaves it as it is.

    Raises:
        PoolIsDead: no actor is left.
        Exception: of a method or an engine, which ends the stream.
    """
    run: _Stream[Item] = _Stream(actors, search, items)
    looking = {asyncio.ensure_future(watch(one, health or Health(), said)) for one in actors}

    def added(actor: Any) -> None:
        run.add(actor)
        looking.add(asyncio.ensure_future(watch(actor, health or Health(), said)))
        if said is not None:
            said(f"prompts wait: {run.size} search actors now")

    if growth is not None:
        looking.add(asyncio.ensure_future(_grow(run, growth, added, said)))
    try:
        while run.fill():
            for found in await run.take():
                yield found
    finally:
        tasks = (*looking, *run.calls, *run.returning)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def search_all(
    actors: Sequence[Any],
    search: Search,
    problems: Sequence[Problem],
    finished: Callable[[Response], None] | None = None,
) -> list[Response]:
    """Response i to problem i, all of them in memory; ``finished`` hears of each as it ends.

    Raises:
        PromptFailed: a problem fails by itself.
        Exception: as of ``stream``.
    """
    answers: dict[int, Response] = {}
    async for number, outcome in stream(actors, search, enumerate(problems)):
        if isinstance(outcome, PromptFailed):
            outcome.add_note(f"while answering prompt {problems[number].prompt_id}")
            raise outcome
        answers[number] = outcome
        if finished is not None:
            finished(outcome)
    return [answers[number] for number in range(len(problems))]


class _Stream(Generic[Item]):
    """The state of one stream: who has how much, and what has come."""

    def __init__(
        self, actors: Sequence[Any], search: Search, items: Iterable[tuple[Item, Problem]]
    ) -> None:
        self._actors, self._search, self._source = list(actors), search, iter(items)
        self._most = search.max_concurrent + round(WAITING * search.max_concurrent)
        self._loads = dict.fromkeys(range(len(self._actors)), 0)  # of those that are there
        self._gone = 0  # actors that Ray does not start any more
        self._lives = [0] * len(self._actors)  # how often each was started again
        self._back: deque[tuple[Item, Problem]] = deque()  # what actors that died had
        self._news: asyncio.Queue[tuple[Item, Outcome] | Exception | None] = asyncio.Queue()
        self._asked = 0  # calls that have not ended
        self._read_all = False  # whether the source has no more
        self.calls: set[asyncio.Task[None]] = set()
        self.returning: set[asyncio.Task[None]] = set()  # one for each actor that is started again

    @property
    def size(self) -> int:
        """How many actors there are, those that are started again too."""
        return len(self._actors) - self._gone

    @property
    def is_full(self) -> bool:
        """Whether problems wait that no actor has room for."""
        waiting = bool(self._back) or not self._read_all
        return waiting and all(n >= self._most for n in self._loads.values())

    def add(self, actor: Any) -> None:
        """One more actor, which has loaded its engines."""
        self._loads[len(self._actors)] = 0
        self._actors.append(actor)
        self._lives.append(0)
        self._news.put_nowait(None)

    def fill(self) -> bool:
        """Gives problems to the least loaded actors while any has room; whether any is left."""
        shares: dict[int, list[tuple[Item, Problem]]] = {}
        while self._loads and min(self._loads.values()) < self._most:
            following = self._back.popleft() if self._back else next(self._source, None)
            if following is None:
                self._read_all = True
                break
            actor = min(self._loads, key=lambda actor: self._loads[actor])
            self._loads[actor] += 1
            shares.setdefault(actor, []).append(following)
        for actor, share in shares.items():
            self._asked += 1
            call = asyncio.ensure_future(self._call(actor, share))
            self.calls.add(call)
            call.add_done_callback(self.calls.discard)
        waits = bool(self.returning) and (bool(self._back) or not self._loads)
        return self._asked > 0 or not self._news.empty() or waits

    async def take(self) -> list[tuple[Item, Outcome]]:
        """What has come; waits for something, be it the end of a call."""
        found: list[tuple[Item, Outcome]] = []
        news = [await self._news.get()]
        while not self._news.empty():
            news.append(self._news.get_nowait())
        for one in news:
            if isinstance(one, Exception):
                raise one
            if one is not None:
                found.append(one)
        return found

    async def _call(self, actor: int, share: list[tuple[Item, Problem]]) -> None:
        """One call of an actor; what it does not answer is given back.

        Ray does not make it again: an actor that was started again may give outcomes in another
        order, of which Ray would leave out as many as had been given.
        """
        left, life = dict(enumerate(share)), self._lives[actor]
        try:
            problems = [problem for _, problem in share]
            run = self._actors[actor].run
            call = run.options(num_returns="streaming", max_task_retries=0)
            async for reference in call.remote(self._search, problems):
                number, outcome = await reference
                if number in left:
                    item, _ = left.pop(number)
                    self._ended(actor, life, 1)
                    self._news.put_nowait((item, outcome))
        except RayActorError:
            self._await_return(actor, life)
        except Exception as error:
            self._news.put_nowait(error)
        finally:
            self._asked -= 1
            self._ended(actor, life, len(left))
            self._back.extend(left.values())
            self._news.put_nowait(None)

    def _ended(self, actor: int, life: int, count: int) -> None:
        if actor in self._loads and life == self._lives[actor]:
            self._loads[actor] -= count

    def _await_return(self, actor: int, life: int) -> None:
        """An actor has died: it gets nothing until Ray has started it again."""
        if life == self._lives[actor] and self._loads.pop(actor, None) is not None:
            task = asyncio.ensure_future(self._return(actor))
            self.returning.add(task)
            task.add_done_callback(self.returning.discard)

    async def _return(self, actor: int) -> None:
        try:
            await self._actors[actor].process.remote()
        except Exception as why:
            self._gone += 1
            if self._gone == len(self._actors):
                dead = PoolIsDead(
                    f"all {len(self._actors)} search actors are dead, the last one: {why}"
                )
                dead.__cause__ = why
                self._news.put_nowait(dead)
        else:
            self._lives[actor] += 1
            self._loads[actor] = 0
        self._news.put_nowait(None)


async def _grow(
    run: _Stream[Any],
    growth: Growth,
    added: Callable[[Any], None],
    said: Callable[[str], None] | None,
) -> None:
    """Starts actors, one after the other, while problems wait, those that were lost again too."""
    while True:
        await asyncio.sleep(growth.every)
        if not run.is_full or run.size >= growth.most:
            continue
        actor = growth.start()
        try:
            await actor.process.remote()  # has found a place, and loaded its engines
        except RayError as error:  # those that are there go on without it
            if said is not None:
                said(f"a further search actor did not start: {error}")
            return
        except asyncio.CancelledError:
            ray.kill(actor)
            raise
        added(actor)
