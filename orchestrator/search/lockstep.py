"""Many problems at once: what they ask for goes to the engines together.

Where a problem ends, the next one takes its place at once; one that fails by itself leaves the
others alone. Knows neither methods nor what stands behind the engines.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import Field, replace
from itertools import count, islice
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from orchestrator.records import Cost
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.problem import Problem, PromptFailed
from orchestrator.search.shared_time import SharedTime
from orchestrator.search.wave import Backend, Wave, WaveEngines, together


class Costed(Protocol):
    """A frozen dataclass with a ``cost``, such as a Response."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def cost(self) -> Cost:
        """What it cost."""


Outcome = TypeVar("Outcome", bound=Costed)
Start = Callable[[Problem, Policy, Reward], Coroutine[Any, Any, Outcome]]
Failed = Callable[[Problem, PromptFailed], None]


async def run_waves(
    problems: Iterable[Problem],
    start: Start[Outcome],
    backend: Backend,
    *,
    wave_size: int,
    waves_in_flight: int = 2,
    finished: Callable[[Outcome], None] | None = None,
    failed: Failed | None = None,
) -> list[Outcome]:
    """Runs problems in waves, ``wave_size`` of each at once; the outcomes in the problems' order.

    There are ``waves_in_flight`` of them, so that one may sample while another scores: every
    second problem is the second wave's, and so on. The time in which several run is shared between
    them, so that the seconds of all problems sum up to the wall time. ``backend`` serves all of
    them; ``failed`` is as of ``run_wave``.

    Raises:
        Exception: the first one of a method or a backend; all that still runs is cancelled.
    """
    whole = list(problems)
    waves = max(1, min(waves_in_flight, -(-len(whole) // wave_size)))
    outcomes: dict[int, Outcome] = {}
    clock = SharedTime()
    await together(
        _run(
            ((i, whole[i]) for i in range(n, len(whole), waves)),
            start, Wave(backend, clock), wave_size, outcomes, finished, failed,
        )
        for n in range(waves)
    )  # fmt: skip
    return [outcomes[i] for i in sorted(outcomes)]


async def run_wave(
    problems: Iterable[Problem],
    start: Start[Outcome],
    backend: Backend,
    *,
    places: int | None = None,
    finished: Callable[[Outcome], None] | None = None,
    failed: Failed | None = None,
) -> list[Outcome]:
    """Runs problems together; the outcomes in the problems' order.

    Args:
        problems: what to answer; read one by one as places become free.
        start: makes a problem's coroutine, e.g. ``SearchMethod.run`` of a method. It may ask for
            several things at once with ``asyncio.gather``; they are asked together.
        backend: answers what they ask.
        places: how many problems are worked on at once; None is all. A waiting problem takes the
            place of one that ends, and asks with the next questions of the others.
        finished: called with the outcome of each problem as it ends.
        failed: called with each problem that fails by itself, which then has no outcome; without
            it the fault is raised as any other.

    Returns:
        Outcomes whose ``cost.seconds`` grew by the wall time divided by the problems that were
        worked on: a problem's own time has no meaning, since its requests travel with others'.

    Raises:
        Exception: the first one of a method or a backend; all that still runs is cancelled.
    """
    outcomes: dict[int, Outcome] = {}
    wave = Wave(backend, SharedTime())
    await _run(enumerate(problems), start, wave, places, outcomes, finished, failed)
    return [outcomes[index] for index in sorted(outcomes)]


async def _run(
    problems: Iterator[tuple[int, Problem]],
    start: Start[Outcome],
    wave: Wave,
    places: int | None,
    outcomes: dict[int, Outcome],
    finished: Callable[[Outcome], None] | None,
    failed: Failed | None,
) -> None:
    """One wave over numbered problems; fills ``outcomes``."""
    first = list(islice(problems, places))
    for index, _ in first:
        wave.join(index)

    async def run(place: tuple[int, Problem] | None) -> None:
        """One place: problem after problem."""
        while place is not None:
            index, problem = place
            engines = WaveEngines(wave, index)
            outcome: Outcome | PromptFailed
            try:
                outcome = await start(problem, engines, engines)
            except Exception as error:
                if failed is None or not isinstance(error, PromptFailed):
                    error.add_note(f"while answering prompt {problem.prompt_id}")
                    raise
                outcome = error
            place = next(problems, None)
            share = Cost(seconds=wave.leave(index, place and place[0]))
            if isinstance(outcome, PromptFailed):
                assert failed is not None
                failed(problem, outcome)
                continue
            outcomes[index] = replace(outcome, cost=outcome.cost + share)
            if finished is not None:
                finished(outcomes[index])

    await together([wave.serve(), *map(run, first)])


class Lockstep(Generic[Outcome]):
    """A wave without an end: problems are answered as they come, in one event loop.

    Which problems go together depends on when they come, and with it the rounding of engines that
    batch; nothing else does.

    Args:
        start: as of ``run_wave``.
        backend: answers what the problems ask.
        places: how many problems are worked on at once; the others wait in the order they came.
    """

    def __init__(
        self,
        start: Start[Outcome],
        backend: Backend,
        places: int,
    ) -> None:
        self._start, self._free = start, places
        self._wave = Wave(backend, SharedTime())
        self._numbers = count()
        self._waiting: deque[tuple[Problem, asyncio.Future[Outcome]]] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._places: set[asyncio.Task[None]] = set()

    async def answer(self, problem: Problem) -> Outcome:
        """The outcome of one problem, as ``run_wave`` gives it.

        Raises:
            PromptFailed: the problem has failed by itself.
            Exception: of the method, or of a backend, which then all raise that waited for it.
        """
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            index = next(self._numbers)
            self._wave.join(index)  # at once: problems that come together begin in one batch
            place = asyncio.ensure_future(self._place(index, problem, done))
            self._places.add(place)
            place.add_done_callback(self._places.discard)
        else:
            self._waiting.append((problem, done))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.ensure_future(self._serve())
        return await done

    async def _place(self, index: int, problem: Problem, done: asyncio.Future[Outcome]) -> None:
        """One place: problem after problem, while any waits."""
        while True:
            engines = WaveEngines(self._wave, index)
            found: Outcome | Exception
            try:
                found = await self._start(problem, engines, engines)
            except Exception as error:
                found = error
            following = next(self._numbers) if self._waiting else None
            share = Cost(seconds=self._wave.leave(index, following))
            if done.cancelled():
                pass  # nobody waits for it any longer
            elif isinstance(found, Exception):
                done.set_exception(found)
            else:
                done.set_result(replace(found, cost=found.cost + share))
            if following is None:
                self._free += 1
                return
            index, (problem, done) = following, self._waiting.popleft()

    async def _serve(self) -> None:
        """Serves until no problem is left; a backend's error is that of those who wait for it."""
        while self._wave.live:
            try:
                await self._wave.serve()
            except Exception as error:
                self._wave.fail(error)
                await asyncio.sleep(0)  # they end
