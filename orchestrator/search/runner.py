"""Runs many searches at once and batches their requests.

When a search ends, the next one starts; a failed search does not affect the others. Independent of
methods and of the engines' backends.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import Field, replace
from itertools import count, islice
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from orchestrator.records import Cost
from orchestrator.search.batcher import Backend, Batcher, BatchingEngines, run_together
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.problem import Problem, PromptFailed
from orchestrator.search.shared_time import SharedTime


class Costed(Protocol):
    """A frozen dataclass with a ``cost``, such as a Response."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def cost(self) -> Cost:
        """The cost of the search."""


Outcome = TypeVar("Outcome", bound=Costed)
SearchOf = Callable[[Problem, Policy, Reward], Coroutine[object, object, Outcome]]
OnFailure = Callable[[Problem, PromptFailed], None]


async def run_searches(
    problems: Iterable[Problem],
    search: SearchOf[Outcome],
    backend: Backend,
    *,
    max_concurrent: int | None = None,
    batchers: int = 1,
    on_outcome: Callable[[Outcome], None] | None = None,
    on_failure: OnFailure | None = None,
) -> list[Outcome]:
    """Search all problems; return the outcomes in the order of the problems.

    Args:
        problems: prompts. With one batcher they are consumed one by one, as searches start.
        search: a problem's coroutine, e.g. ``SearchMethod.run`` of a method. Its simultaneous
            requests (``asyncio.gather``) are sent together.
        backend: answers the requests.
        max_concurrent: searches of a batcher that run at once; None: all. The next problem starts
            when a search ends.
        batchers: groups of searches with separate batches, so that one can sample while another
            scores; problem i belongs to group i modulo their number.
        on_outcome: called with each outcome when its search ends.
        on_failure: called with each problem whose search raises PromptFailed, which then has no
            outcome; None raises the error.

    Returns:
        Outcomes with the wall time, divided among the searches in progress, added to
        ``cost.seconds``; these seconds sum up to the wall time.

    Raises:
        Exception: the first one of a search or a backend; all other searches are cancelled.
    """
    outcomes: dict[int, Outcome] = {}
    clock = SharedTime()
    groups: list[Iterator[tuple[int, Problem]]] = [iter(enumerate(problems))]
    if batchers > 1:
        listed = list(enumerate(problems))
        filled = -(
            -len(listed) // (max_concurrent or len(listed) or 1)
        )  # too few problems for more
        batchers = max(1, min(batchers, filled))
        groups = [iter(listed[n::batchers]) for n in range(batchers)]
    await run_together(
        _run_group(
            group, search, Batcher(backend, clock), max_concurrent, outcomes, on_outcome, on_failure
        )
        for group in groups
    )
    return [outcomes[index] for index in sorted(outcomes)]


async def _run_group(
    problems: Iterator[tuple[int, Problem]],
    search: SearchOf[Outcome],
    batcher: Batcher,
    max_concurrent: int | None,
    outcomes: dict[int, Outcome],
    on_outcome: Callable[[Outcome], None] | None,
    on_failure: OnFailure | None,
) -> None:
    """Search numbered problems with one batcher; store the results in ``outcomes``."""
    first = list(islice(problems, max_concurrent))
    for index, _ in first:
        batcher.join(index)

    async def run_slot(numbered: tuple[int, Problem] | None) -> None:
        """Search problems until none is left."""
        while numbered is not None:
            index, problem = numbered
            engines = BatchingEngines(batcher, index)
            outcome: Outcome | PromptFailed
            try:
                outcome = await search(problem, engines, engines)
            except Exception as error:
                if on_failure is None or not isinstance(error, PromptFailed):
                    error.add_note(f"while answering prompt {problem.prompt_id}")
                    raise
                outcome = error
            numbered = next(problems, None)
            share = Cost(seconds=batcher.leave(index, numbered and numbered[0]))
            if isinstance(outcome, PromptFailed):
                assert on_failure is not None
                on_failure(problem, outcome)
                continue
            outcomes[index] = replace(outcome, cost=outcome.cost + share)
            if on_outcome is not None:
                on_outcome(outcomes[index])

    await run_together([batcher.serve(), *map(run_slot, first)])


class SearchRunner(Generic[Outcome]):
    """Searches problems that arrive over time, in one event loop.

    Batches, and with them the rounding of engines, depend on when the problems arrive.

    Args:
        search: as in ``run_searches``.
        backend: answers the requests.
        max_concurrent: searches that run at once; other problems wait in order of arrival.
    """

    def __init__(self, search: SearchOf[Outcome], backend: Backend, max_concurrent: int) -> None:
        self._search, self._free = search, max_concurrent
        self._batcher = Batcher(backend, SharedTime())
        self._numbers = count()
        self._waiting: deque[tuple[Problem, asyncio.Future[Outcome]]] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._slots: set[asyncio.Task[None]] = set()

    async def answer(self, problem: Problem) -> Outcome:
        """Return the outcome of one problem, with ``cost.seconds`` as in ``run_searches``.

        Raises:
            PromptFailed: the prompt cannot be answered.
            Exception: of the search, or of the backend while the search waits for it.
        """
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            index = next(self._numbers)
            self._batcher.join(index)  # now: simultaneous problems start in one batch
            slot = asyncio.ensure_future(self._run_slot(index, problem, done))
            self._slots.add(slot)
            slot.add_done_callback(self._slots.discard)
        else:
            self._waiting.append((problem, done))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.ensure_future(self._serve())
        return await done

    async def _run_slot(self, index: int, problem: Problem, done: asyncio.Future[Outcome]) -> None:
        """Search problems while any is waiting."""
        while True:
            engines = BatchingEngines(self._batcher, index)
            outcome: Outcome | Exception
            try:
                outcome = await self._search(problem, engines, engines)
            except Exception as error:
                outcome = error
            following = next(self._numbers) if self._waiting else None
            share = Cost(seconds=self._batcher.leave(index, following))
            if done.cancelled():
                pass  # the caller was cancelled
            elif isinstance(outcome, Exception):
                done.set_exception(outcome)
            else:
                done.set_result(replace(outcome, cost=outcome.cost + share))
            if following is None:
                self._free += 1
                return
            index, (problem, done) = following, self._waiting.popleft()

    async def _serve(self) -> None:
        """Serve until no search is left; an error of the backend is raised in waiting searches."""
        while self._batcher.live:
            try:
                await self._batcher.serve()
            except Exception as error:
                self._batcher.fail(error)
                await asyncio.sleep(0)  # lets them end
