"""`jobs/bench.py pools`: search actors on stand-in engines, which cost time but no computing.

Throughput of 1, 2, 4 and 8 actors, each of whose engine calls sleeps half a second: what the pool
itself costs shows as the share of linear growth that is missing. And the driver's memory while a
hundred thousand prompts stream through actors whose engines do not sleep.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from actors.search import ActorBackend, Search, SearchActor
from actors.search_stream import stream
from jobs.benchmarks.measure import resident_mib
from jobs.benchmarks.names import MEMORY_AT
from jobs.sweep import cluster
from orchestrator.records import Response
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.engines import (
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.search.methods.policy_alone import Base
from orchestrator.search.problem import Problem
from orchestrator.search.tabular import TabularPolicy, TabularReward

SLEEP_S = 0.5
PLACES = 32  # in flight in each actor
ROUNDS = 5  # times that every place is filled
FLOOR = 0.95  # of linear
MEMORY_MIB = 100.0  # that the driver may grow by between them
ACTOR_CPUS = 0.1
VOCABULARY, END = 4, 3
# Three chunks of two tokens, of one candidate: a sample and a score each.
SLEEPING = Search(ChunkBeamSearch(beams=1, candidates=1, chunk=2), PLACES)
QUICK = Search(Base(), PLACES)


@dataclass(frozen=True)
class StandIn:
    """Engines whose calls sleep for some seconds and answer from a table of one row.

    The end token has no chance, so that all responses take equally many calls.
    """

    sleep_s: float

    def load(self) -> ActorBackend:
        """The engines themselves."""
        return _Batches(_Sleeping(self.sleep_s))


class _Batches(BatchBackend):
    """A backend of batches as an actor's."""

    def __init__(self, both: "_Sleeping") -> None:
        super().__init__(both, both)

    async def forget(self) -> None:
        """Keeps nothing."""

    def close(self) -> None:
        """Holds nothing."""


class _Sleeping:
    """The tabular engines as a backend."""

    def __init__(self, sleep_s: float) -> None:
        self._sleep_s = sleep_s
        self._policy = TabularPolicy(lambda x, y: (0.0, 0.1, 0.2, -1e9), END)
        self._reward = TabularReward(lambda x, y: float(sum(y)))

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        await self._wait()
        return [await self._policy.sample(request) for request in requests]

    async def top(self, requests: list[TopRequest]) -> list[TopTokens]:
        await self._wait()
        return [await self._policy.top(request) for request in requests]

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        await self._wait()
        return [await self._reward.score(request) for request in requests]

    async def _wait(self) -> None:
        if self._sleep_s:
            await asyncio.sleep(self._sleep_s)


def bench_pools(counts: Sequence[int], prompts: int, file: Path | None) -> None:
    """Measures, prints a table and a line of JSON, and writes it where ``file`` says.

    Args:
        counts: of actors; the first one is what the others are compared with.
        prompts: that stream through for the driver's memory; less than MEMORY_AT[0] leaves it out.
        file: also gets the line of JSON.
    """
    console = Console(stderr=True)
    cluster.connect(console, dashboard=False)
    results: list[dict[str, Any]] = []
    for count in counts:
        rate = _throughput(count)
        first = results[0] if results else {"actors": count, "prompts_per_s": rate}
        linear = first["prompts_per_s"] * count / first["actors"]
        results.append(
            {"actors": count, "prompts_per_s": rate, "of_linear": rate / linear, "floor": FLOOR}
        )
        console.print(f"{count} actors: {rate:.2f} prompts/s", highlight=False)
    memory = _memory(prompts, console) if prompts >= MEMORY_AT[0] else None
    ray.shutdown()
    Console(width=100).print(_table(results))
    cores = os.cpu_count()
    line = json.dumps({"device": f"{cores} CPU cores", "results": results, "memory": memory})
    print(line)
    if file is not None:
        file.write_text(line + "\n")


def _throughput(count: int) -> float:
    """Prompts a second of so many actors, from the first one given to the last one answered."""
    actors = _actors(count, SLEEP_S)
    try:
        started = time.perf_counter()
        total = asyncio.run(_run(actors, SLEEPING, count * PLACES * ROUNDS))
        return total / (time.perf_counter() - started)
    finally:
        for actor in actors:
            ray.kill(actor)


def _memory(prompts: int, console: Console) -> dict[str, float]:
    """Resident memory of this process (MiB) after some prompts, and prompts a second."""
    actors = _actors(os.cpu_count() or 1, 0.0)
    at = sorted({n for n in MEMORY_AT if n < prompts} | {prompts})
    found: dict[str, float] = {}
    started = time.perf_counter()

    def seen(count: int) -> None:
        if count in at:
            found[f"mib_at_{count}"] = resident_mib()
            console.print(f"{count:,} prompts: {resident_mib():.0f} MiB", highlight=False)

    asyncio.run(_run(actors, QUICK, prompts, seen))
    seen_mib = list(found.values())
    found |= {"grown_mib": seen_mib[-1] - seen_mib[0], "most_mib": MEMORY_MIB}
    return {**found, "prompts_per_s": prompts / (time.perf_counter() - started)}


def _actors(count: int, sleep_s: float) -> list[Any]:
    actors = [
        SearchActor.options(num_cpus=ACTOR_CPUS).remote(StandIn(sleep_s))  # type: ignore[attr-defined]
        for _ in range(count)
    ]
    ray.get([actor.ready.remote() for actor in actors])
    return actors


async def _run(
    actors: Sequence[Any], search: Search, count: int, seen: Any = lambda count: None
) -> int:
    """Streams so many prompts; how many were answered."""
    answered = 0
    async for _, outcome in stream(actors, search, _problems(count)):
        assert isinstance(outcome, Response)
        answered += 1
        seen(answered)
    return answered


def _problems(count: int) -> Iterator[tuple[int, Problem]]:
    for number in range(count):
        yield number, Problem(f"prompt-{number}", (number,), 0, max_new_tokens=6)


def _table(results: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"Search actors, every engine call {SLEEP_S:g} s, {PLACES} prompts in each")
    for heading in results[0]:
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in result.values()))
    return table
