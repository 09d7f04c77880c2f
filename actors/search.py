"""The search actor: both engines in one process, and the search of the prompts that come to it.

Nothing but prompts and responses travels, and neither engine waits for a call: the way for cores
and for a card that both models share. A prompt's requests never leave the actor that holds its keys
and values. Who gives prompts to actors: `search_stream.py`.
"""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import ray

from actors.policy import RESTARTS, PolicyPlace, load_engine
from actors.reward import RewardPlace, scorer_at
from orchestrator.decoding.backend import Loaded, ModelBackend, PolicyEngine
from orchestrator.records import Response
from orchestrator.search.batcher import Backend
from orchestrator.search.method import SearchMethod
from orchestrator.search.problem import Problem, PromptFailed
from orchestrator.search.runner import SearchRunner


@dataclass(frozen=True)
class Search:
    """A search method, and how many prompts it answers at once.

    ``engines`` are those to search with; None: those that the actor was started with.
    """

    method: SearchMethod[Any]
    max_concurrent: int
    engines: "Engines | None" = None


class ActorBackend(Backend, Protocol):
    """Both engines of an actor."""

    async def forget(self) -> None:
        """Drops what engines keep between searches."""

    def close(self) -> None:
        """Ends what it holds beside the models."""


class Engines(Protocol):
    """What an actor loads; a plain value, so that one that starts again loads the same."""

    def load(self) -> ActorBackend:
        """Loads both engines."""


@dataclass(frozen=True)
class ModelEngines:
    """A policy, and a reward model where the method asks for scores.

    A process keeps the last policy and the last few scorers that it loaded.
    """

    policy: PolicyPlace
    reward: RewardPlace | None

    def load(self) -> ActorBackend:
        """Loads both models."""
        return ModelBackend(self._models, self.policy.threads)

    def _models(self) -> Loaded:
        return _policy(self.policy), None if self.reward is None else scorer_at(self.reward)


@lru_cache(maxsize=1)
def _policy(place: PolicyPlace) -> PolicyEngine:
    return load_engine(place)


Outcome = Response | PromptFailed
COLLECT = (50_000, 20, 20)  # thresholds of Python's garbage collector


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
class SearchActor:
    """Searches with engines of its own."""

    def __init__(self, engines: Engines | None = None) -> None:
        self._engines, self._loading = engines, asyncio.Lock()
        # Candidates by the thousands, none of them in cycles: the collector took 7 % of the time.
        gc.set_threshold(*COLLECT)
        self._backend = None if engines is None else _loaded(engines)
        self._search: Search | None = None
        self._runner: SearchRunner[Response] | None = None

    async def ready(self, search: Search | None = None) -> None:
        """Answers once both engines are loaded, those of ``search`` where it names any."""
        if search is not None:
            await self._runner_for(search)

    async def process(self) -> tuple[str, int]:
        """The node of its process, and the process's number; answers while engines compute."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    async def run(
        self, search: Search, problems: Sequence[Problem]
    ) -> AsyncIterator[tuple[int, Outcome]]:
        """Gives each problem's number and outcome as it ends; all calls search together."""
        runner = await self._runner_for(search)
        found = [
            asyncio.ensure_future(_outcome(runner, number, problem))
            for number, problem in enumerate(problems)
        ]
        try:
            for one in asyncio.as_completed(found):
                yield await one
        finally:
            for task in found:
                task.cancel()

    async def _runner_for(self, search: Search) -> SearchRunner[Response]:
        async with self._loading:
            if search.engines is not None and search.engines != self._engines:
                if self._backend is not None:
                    self._backend.close()
                self._engines = self._backend = None  # should loading fail
                # In a thread: an actor that loads a large model still answers that it is alive.
                self._backend = await asyncio.to_thread(_loaded, search.engines)
                self._engines = search.engines
            if self._backend is None:
                raise ValueError("a search without engines, and this actor has none of its own")
            if self._runner is None or self._search != search:
                await self._backend.forget()
                self._runner = SearchRunner(search.method.run, self._backend, search.max_concurrent)
                self._search = search
            return self._runner


def _loaded(engines: Engines) -> ActorBackend:
    """Loads engines; those that were dropped for them are in cycles, and go now."""
    backend = engines.load()
    gc.collect()
    return backend


async def _outcome(
    runner: SearchRunner[Response], number: int, problem: Problem
) -> tuple[int, Outcome]:
    try:
        return number, await runner.answer(problem)
    except PromptFailed as failed:
        return number, failed
    except Exception as error:
        error.add_note(f"while answering prompt {problem.prompt_id}")
        raise
