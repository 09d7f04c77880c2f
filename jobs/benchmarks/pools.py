"""Implement `jobs/bench.py pools`: search actors with stand-in engines, which only sleep.

It measures the throughput of 1, 2, 4 and 8 actors whose engine calls sleep for half a second; the
difference to linear scaling is the overhead of the pool. It also measures the memory of the driver
while 100,000 prompts stream through actors whose engines do not sleep.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import ray
from ray.actor import ActorHandle
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
MAX_CONCURRENT = 32  # prompts in each actor
ROUNDS = 5  # prompts in total, as a multiple of the concurrent ones
FLOOR = 0.95  # share of linear scaling
MEMORY_MIB = 100.0  # limit of the growth of the driver's memory
ACTOR_CPUS = 0.1
VOCABULARY, END = 4, 3
# Three chunks of two tokens with one candidate: one sample and one score each.
SLEEPING = Search(ChunkBeamSearch(beams=1, candidates=1, chunk=2), MAX_CONCURRENT)
QUICK = Search(Base(), MAX_CONCURRENT)


class PoolResult(TypedDict):
    """Throughput of a number of actors, absolute and relative to linear scaling."""

    actors: int
    prompts_per_s: float
    of_linear: float
    floor: float


@dataclass(frozen=True)
class StandIn:
    """Engines whose calls sleep for some seconds and return constant probabilities.

    The end token has probability 0, so that all responses take the same number of calls.
    """

    sleep_s: float

    def load(self) -> ActorBackend:
        """Return a backend of the engines."""
        return _Batches(_Sleeping(self.sleep_s))


class _Batches(BatchBackend):
    """The stand-in engines as the backend of an actor."""

    def __init__(self, both: "_Sleeping") -> None:
        super().__init__(both, both)

    async def clear_cache(self) -> None:
        """Do nothing: there is no cache."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class _Sleeping:
    """Tabular engines whose calls sleep."""

    def __init__(self, sleep_s: float) -> None:
        self._sleep_s = sleep_s
        self._policy = TabularPolicy(lambda x, y: (0.0, 0.1, 0.2, -1e9), END)
        self._reward = TabularReward(lambda x, y: float(sum(y)))

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        await self._wait()
        return [await self._policy.sample(request) for request in requests]

    async def top_next_tokens(self, requests: list[TopRequest]) -> list[TopTokens]:
        await self._wait()
        return [await self._policy.top_next_tokens(request) for request in requests]

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        await self._wait()
        return [await self._reward.score(request) for request in requests]

    async def _wait(self) -> None:
        if self._sleep_s:
            await asyncio.sleep(self._sleep_s)


def bench_pools(counts: Sequence[int], prompts: int, file: Path | None) -> None:
    """Measure the pools, and print a table and a line of JSON.

    Args:
        counts: numbers of actors; the others are compared to the first one.
        prompts: prompts that are streamed to measure memory; less than MEMORY_AT[0] skips this.
        file: also gets the line of JSON.
    """
    console = Console(stderr=True)
    cluster.connect(console, dashboard=False)
    results: list[PoolResult] = []
    for count in counts:
        rate = _throughput(count)
        rate_per_actor = (
            results[0]["prompts_per_s"] / results[0]["actors"] if results else rate / count
        )
        linear = rate_per_actor * count
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
    """Return the prompts per second of some actors, from the first request to the last answer."""
    actors = _actors(count, SLEEP_S)
    try:
        started = time.perf_counter()
        total = asyncio.run(_run(actors, SLEEPING, count * MAX_CONCURRENT * ROUNDS))
        return total / (time.perf_counter() - started)
    finally:
        for actor in actors:
            ray.kill(actor)


def _memory(prompts: int, console: Console) -> dict[str, float]:
    """Return the resident memory of this process (MiB) at some prompts, and prompts per second."""
    actors = _actors(os.cpu_count() or 1, 0.0)
    at = sorted({n for n in MEMORY_AT if n < prompts} | {prompts})
    memory: dict[str, float] = {}
    started = time.perf_counter()

    def on_answer(count: int) -> None:
        if count in at:
            memory[f"mib_at_{count}"] = resident_mib()
            console.print(f"{count:,} prompts: {resident_mib():.0f} MiB", highlight=False)

    asyncio.run(_run(actors, QUICK, prompts, on_answer))
    sizes = list(memory.values())
    memory |= {"grown_mib": sizes[-1] - sizes[0], "most_mib": MEMORY_MIB}
    return {**memory, "prompts_per_s": prompts / (time.perf_counter() - started)}


def _actors(count: int, sleep_s: float) -> list[ActorHandle]:
    actors = [
        SearchActor.options(num_cpus=ACTOR_CPUS).remote(StandIn(sleep_s))  # type: ignore[attr-defined]
        for _ in range(count)
    ]
    ray.get([actor.ready.remote() for actor in actors])
    return actors


async def _run(
    actors: Sequence[ActorHandle],
    search: Search,
    count: int,
    on_answer: Callable[[int], None] = lambda count: None,
) -> int:
    """Stream ``count`` prompts and return how many were answered."""
    answered = 0
    async for _, outcome in stream(actors, search, _problems(count)):
        assert isinstance(outcome, Response)
        answered += 1
        on_answer(answered)
    return answered


def _problems(count: int) -> Iterator[tuple[int, Problem]]:
    for number in range(count):
        yield number, Problem(f"prompt-{number}", (number,), 0, max_new_tokens=6)


def _table(results: Sequence[PoolResult]) -> Table:
    table = Table(
        title=f"Search actors; engine calls of {SLEEP_S:g} s, {MAX_CONCURRENT} prompts per actor"
    )
    for heading in results[0]:
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in result.values()))
    return table
