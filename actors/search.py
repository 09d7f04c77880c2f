"""The search actor: policy and reward engine in one process, and the searches of its prompts.

Only prompts and responses travel between processes, and the requests of a prompt stay in the actor
that caches its keys and values. ``search_stream.py`` distributes prompts among search actors.
"""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import ray

from actors.policy import RESTARTS, PolicySpec, load_engine
from actors.reward import RewardSpec, cached_scorer
from orchestrator.decoding.backend import Loaded, ModelBackend, PolicyEngine
from orchestrator.records import Response
from orchestrator.search.batcher import Backend
from orchestrator.search.method import AnySearchMethod
from orchestrator.search.problem import Problem, PromptFailed
from orchestrator.search.runner import SearchRunner


@dataclass(frozen=True)
class Search:
    """A search method and how an actor runs it.

    Attributes:
        method: the search method.
        max_concurrent: prompts that are searched at once.
        engines: the engines to load; None: those that the actor was started with.
    """

    method: AnySearchMethod
    max_concurrent: int
    engines: "Engines | None" = None


class ActorBackend(Backend, Protocol):
    """A search backend with both engines of an actor."""

    async def clear_cache(self) -> None:
        """Clear the KV caches."""

    def close(self) -> None:
        """Release threads and child processes."""


class Engines(Protocol):
    """What an actor loads: a picklable value, so that a restarted actor loads the same."""

    def load(self) -> ActorBackend:
        """Load both engines."""


@dataclass(frozen=True)
class ModelEngines:
    """A policy, and a reward model if the method needs scores.

    A process keeps the last policy and the last few scorers that it loaded.
    """

    policy: PolicySpec
    reward: RewardSpec | None

    def load(self) -> ActorBackend:
        """Load both models."""
        return ModelBackend(self._models, self.policy.threads)

    def _models(self) -> Loaded:
        return _policy(self.policy), None if self.reward is None else cached_scorer(self.reward)


@lru_cache(maxsize=1)
def _policy(spec: PolicySpec) -> PolicyEngine:
    return load_engine(spec)


Outcome = Response | PromptFailed
GC_THRESHOLDS = (50_000, 20, 20)  # thresholds of Python's garbage collector


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
class SearchActor:
    """Runs searches with its engines.

    Args:
        engines: loaded in the constructor; None: each ``Search`` names its engines.
    """

    def __init__(self, engines: Engines | None = None) -> None:
        self._engines, self._loading = engines, asyncio.Lock()
        # A search creates thousands of candidates, none in a reference cycle, and the collector
        # would take 7 % of the time.
        gc.set_threshold(*GC_THRESHOLDS)
        self._backend = None if engines is None else _load(engines)
        self._search: Search | None = None
        self._runner: SearchRunner[Response] | None = None

    async def ready(self, search: Search | None = None) -> None:
        """Return when the engines are loaded: those of ``search`` or of the constructor."""
        if search is not None:
            await self._runner_for(search)

    async def node_and_pid(self) -> tuple[str, int]:
        """Return the id of the actor's node and of its process, also while engines compute."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    async def run(
        self, search: Search, problems: Sequence[Problem]
    ) -> AsyncIterator[tuple[int, Outcome]]:
        """Yield the index and outcome of each problem as its search ends.

        Concurrent calls share one runner, and so one batch.
        """
        runner = await self._runner_for(search)
        tasks = [
            asyncio.ensure_future(_outcome(runner, index, problem))
            for index, problem in enumerate(problems)
        ]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for running in tasks:
                running.cancel()

    async def _runner_for(self, search: Search) -> SearchRunner[Response]:
        async with self._loading:
            if search.engines is not None and search.engines != self._engines:
                if self._backend is not None:
                    self._backend.close()
                self._engines = self._backend = None  # if loading fails
                # In a thread: the actor answers health checks while it loads a large model.
                self._backend = await asyncio.to_thread(_load, search.engines)
                self._engines = search.engines
            if self._backend is None:
                raise ValueError(
                    "Search.engines is None, and the actor was started without engines; set one of"
                    " them"
                )
            if self._runner is None or self._search != search:
                await self._backend.clear_cache()
                self._runner = SearchRunner(search.method.run, self._backend, search.max_concurrent)
                self._search = search
            return self._runner


def _load(engines: Engines) -> ActorBackend:
    """Load engines, and free those that they replace, which are in reference cycles."""
    backend = engines.load()
    gc.collect()
    return backend


async def _outcome(
    runner: SearchRunner[Response], index: int, problem: Problem
) -> tuple[int, Outcome]:
    try:
        return index, await runner.answer(problem)
    except PromptFailed as failed:
        return index, failed
    except Exception as error:
        error.add_note(f"while answering prompt {problem.prompt_id}")
        raise
