"""Stream any number of prompts through a pool of search actors, with back-pressure.

Each actor holds the prompts that it searches at once and as many that wait, so that a finished
search is replaced at once; only one more prompt is read before there is room. Ray restarts an actor
that died; the prompts that it had not answered go to the other actors.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from actors.health import Health, watch
from actors.pool import PoolIsDead
from actors.search import Outcome, Search
from orchestrator.records import Response
from orchestrator.search.problem import Problem, PromptFailed

QUEUE_RATIO = 1.0  # prompts that wait in an actor, for each prompt that it searches
Item = TypeVar("Item")
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Growth:
    """How a pool grows while prompts wait.

    Actors are started one at a time. One that finds no room stays pending in Ray, which makes its
    autoscaler add a node.

    Attributes:
        start: starts an actor and returns its handle.
        max_actors: the largest size of the pool.
        interval: seconds between two checks of the pool.
    """

    start: Callable[[], ActorHandle]
    max_actors: int
    interval: float = 2.0


async def stream(
    actors: Sequence[ActorHandle],
    search: Search,
    items: Iterable[tuple[Item, Problem]],
    health: Health | None = None,
    notify: Notify | None = None,
    growth: Growth | None = None,
) -> AsyncIterator[tuple[Item, Outcome]]:
    """Yield each item with the outcome of its problem, in the order in which searches end.

    Args:
        actors: handles of SearchActor.
        search: the method, and how many problems an actor searches at once.
        items: any values with their problems; only one is read before an actor has room for it.
        health: the health checks of actors; None: the defaults.
        notify: called with a sentence when an actor is restarted, added or could not be started.
        growth: how the pool grows; None: its size is fixed.

    Raises:
        PoolIsDead: no actor is alive.
        Exception: an error of the method or of an engine, which ends the stream.
    """
    run: _Stream[Item] = _Stream(actors, search, items)
    background = {asyncio.ensure_future(watch(one, health or Health(), notify)) for one in actors}

    def add(actor: ActorHandle) -> None:
        run.add(actor)
        background.add(asyncio.ensure_future(watch(actor, health or Health(), notify)))
        if notify is not None:
            notify(f"prompts are waiting: added a search actor, now {run.size}")

    if growth is not None:
        background.add(asyncio.ensure_future(_grow(run, growth, add, notify)))
    try:
        while run.dispatch():
            for outcome in await run.take():
                yield outcome
    finally:
        tasks = (*background, *run.calls, *run.restarts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def search_all(
    actors: Sequence[ActorHandle],
    search: Search,
    problems: Sequence[Problem],
    finished: Callable[[Response], None] | None = None,
) -> list[Response]:
    """Return the response to each problem, in the order of the problems.

    Args:
        actors: handles of SearchActor.
        search: the method, and how many problems an actor searches at once.
        problems: the prompts.
        finished: called with each response when its search ends.

    Raises:
        PromptFailed: a problem failed.
        Exception: as ``stream``.
    """
    answers: dict[int, Response] = {}
    async for index, outcome in stream(actors, search, enumerate(problems)):
        if isinstance(outcome, PromptFailed):
            outcome.add_note(f"while answering prompt {problems[index].prompt_id}")
            raise outcome
        answers[index] = outcome
        if finished is not None:
            finished(outcome)
    return [answers[index] for index in range(len(problems))]


class _Stream(Generic[Item]):
    """The state of one stream: the load of each actor, and the outcomes that have arrived."""

    def __init__(
        self, actors: Sequence[ActorHandle], search: Search, items: Iterable[tuple[Item, Problem]]
    ) -> None:
        self._actors, self._search, self._source = list(actors), search, iter(items)
        self._limit = search.max_concurrent + round(QUEUE_RATIO * search.max_concurrent)
        self._loads = dict.fromkeys(range(len(self._actors)), 0)  # prompts of each live actor
        self._dead = 0  # actors that Ray does not restart any more
        self._restarts = [0] * len(self._actors)  # number of restarts of each actor
        # What dead actors did not answer; if that is nothing, the next problem of the source.
        self._waiting: deque[tuple[Item, Problem]] = deque()
        self._events: asyncio.Queue[tuple[Item, Outcome] | Exception | None] = asyncio.Queue()
        self._running = 0  # calls of actors that have not ended
        self._error: Exception | None = None  # ends the stream after the outcomes before it
        self.calls: set[asyncio.Task[None]] = set()
        self.restarts: set[asyncio.Task[None]] = set()  # one for each actor that restarts

    @property
    def size(self) -> int:
        """Number of actors, including those that restart."""
        return len(self._actors) - self._dead

    @property
    def needs_actor(self) -> bool:
        """Whether a problem waits and no actor has room for it."""
        return bool(self._waiting) and all(load >= self._limit for load in self._loads.values())

    def add(self, actor: ActorHandle) -> None:
        """Add an actor that has loaded its engines."""
        self._loads[len(self._actors)] = 0
        self._actors.append(actor)
        self._restarts.append(0)
        self._events.put_nowait(None)

    def dispatch(self) -> bool:
        """Send problems to the least loaded actors that have room.

        Returns:
            Whether the stream must wait for further events; False: it is finished.
        """
        if self._error is not None:
            return True
        batches: dict[int, list[tuple[Item, Problem]]] = {}
        while self._waits() and self._loads and min(self._loads.values()) < self._limit:
            actor = min(self._loads, key=lambda actor: self._loads[actor])
            self._loads[actor] += 1
            batches.setdefault(actor, []).append(self._waiting.popleft())
        for actor, batch in batches.items():
            self._running += 1
            call = asyncio.ensure_future(self._call(actor, batch))
            self.calls.add(call)
            call.add_done_callback(self.calls.discard)
        waits_for_restart = bool(self.restarts) and bool(self._waiting)
        return self._running > 0 or not self._events.empty() or waits_for_restart

    def _waits(self) -> bool:
        """Return whether a problem waits; if none does, the next one is read."""
        if not self._waiting:
            self._waiting.extend(islice(self._source, 1))
        return bool(self._waiting)

    async def take(self) -> list[tuple[Item, Outcome]]:
        """Wait for an event, such as the end of a call, and return the outcomes so far.

        Raises:
            Exception: an error that ended a call, after the outcomes that arrived with it.
        """
        outcomes: list[tuple[Item, Outcome]] = []
        events = [] if self._error is not None else [await self._events.get()]
        while not self._events.empty():
            events.append(self._events.get_nowait())
        for event in events:
            if isinstance(event, Exception):
                self._error = self._error or event
            elif event is not None:
                outcomes.append(event)
        if self._error is not None and not outcomes:
            raise self._error
        return outcomes

    async def _call(self, actor: int, batch: list[tuple[Item, Problem]]) -> None:
        """Send a batch to an actor; what it does not answer is queued again.

        Ray does not retry the call: a restarted actor may yield outcomes in another order, and Ray
        would skip as many as it had received before.
        """
        unanswered, restarts = dict(enumerate(batch)), self._restarts[actor]
        try:
            problems = [problem for _, problem in batch]
            run = self._actors[actor].run
            call = run.options(num_returns="streaming", max_task_retries=0)
            async for reference in call.remote(self._search, problems):
                index, outcome = await reference
                if index in unanswered:
                    item, _ = unanswered.pop(index)
                    self._reduce_load(actor, restarts, 1)
                    self._events.put_nowait((item, outcome))
        except RayActorError:
            self._await_restart(actor, restarts)
        except Exception as error:
            self._events.put_nowait(error)
        finally:
            self._running -= 1
            self._reduce_load(actor, restarts, len(unanswered))
            self._waiting.extend(unanswered.values())
            self._events.put_nowait(None)

    def _reduce_load(self, actor: int, restarts: int, count: int) -> None:
        if actor in self._loads and restarts == self._restarts[actor]:
            self._loads[actor] -= count

    def _await_restart(self, actor: int, restarts: int) -> None:
        """Send nothing to an actor that has died until Ray has restarted it."""
        if restarts == self._restarts[actor] and self._loads.pop(actor, None) is not None:
            task = asyncio.ensure_future(self._restarted(actor))
            self.restarts.add(task)
            task.add_done_callback(self.restarts.discard)

    async def _restarted(self, actor: int) -> None:
        try:
            await self._actors[actor].node_and_pid.remote()
        except Exception as error:
            self._dead += 1
            if self._dead == len(self._actors):
                dead = PoolIsDead(
                    f"all {len(self._actors)} search actors are dead; the last error: {error}"
                )
                dead.__cause__ = error
                self._events.put_nowait(dead)
        else:
            self._restarts[actor] += 1
            self._loads[actor] = 0
        self._events.put_nowait(None)


async def _grow(
    run: _Stream[Item],
    growth: Growth,
    add: Callable[[ActorHandle], None],
    notify: Notify | None,
) -> None:
    """Start actors one at a time while problems wait, also in place of dead ones.

    Stop at the first that cannot be started.
    """
    while True:
        await asyncio.sleep(growth.interval)
        if not run.needs_actor or run.size >= growth.max_actors:
            continue
        actor = growth.start()
        try:
            await actor.node_and_pid.remote()  # it is scheduled and has loaded its engines
        except RayError as error:  # the other actors continue without it
            if notify is not None:
                notify(f"could not start a further search actor: {error}")
            return
        except asyncio.CancelledError:
            ray.kill(actor)
            raise
        add(actor)
