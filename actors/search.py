"""The search actor: both engines in one process, and the search of the prompts that come to it.

Nothing but prompts and responses travels, and neither engine waits for a call: the way for cores
and for a card that both models share. A prompt's requests never leave the actor that holds its keys
and values. Who gives prompts to actors: `search_stream.py`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray

from actors.policy import RESTARTS, PolicyPlace, load_engine
from actors.reward import RewardPlace
from orchestrator.decoding.backend import Loaded, ModelBackend
from orchestrator.engines.chat import load_chat
from orchestrator.records import Response
from orchestrator.scorers.registry import load_scorer
from orchestrator.search.lockstep import Lockstep
from orchestrator.search.problem import Problem, PromptFailed
from orchestrator.search.registry import METHODS
from orchestrator.search.wave import PolicyBackend, RewardBackend


@dataclass(frozen=True)
class Search:
    """A method by its name in the registry, its parameters, and how many prompts at once."""

    method: str
    parameters: Any
    places: int


class Backend(PolicyBackend, RewardBackend, Protocol):
    """Both engines of an actor."""


class Engines(Protocol):
    """What an actor loads; a plain value, so that one that starts again loads the same."""

    def load(self) -> Backend:
        """Loads both engines."""


@dataclass(frozen=True)
class ModelEngines:
    """A policy, and a reward model where the method asks for scores, on transformers."""

    policy: PolicyPlace
    reward: RewardPlace | None

    def load(self) -> Backend:
        """Loads both models."""
        return ModelBackend(self._models, self.policy.threads)

    def _models(self) -> Loaded:
        policy, place = load_engine(self.policy), self.reward
        if place is None:
            return policy, None
        chat = load_chat(place.policy)
        return policy, load_scorer(place.scorer, place.position, chat, place.device, place.dtype)


Outcome = Response | PromptFailed


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
class SearchActor:
    """Searches with engines of its own."""

    def __init__(self, engines: Engines) -> None:
        self._backend = engines.load()
        self._search: Search | None = None
        self._lockstep: Lockstep[Response] | None = None

    async def ready(self) -> None:
        """Answers once both engines are loaded."""

    async def process(self) -> tuple[str, int]:
        """The node of its process, and the process's number; answers while engines compute."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    async def run(
        self, search: Search, problems: Sequence[Problem]
    ) -> AsyncIterator[tuple[int, Outcome]]:
        """Gives each problem's number and outcome as it ends; all calls search together."""
        if self._lockstep is None or self._search != search:
            start = METHODS[search.method].bind(search.parameters)
            self._lockstep = Lockstep(start, self._backend, self._backend, search.places)
            self._search = search
        found = [
            asyncio.ensure_future(_outcome(self._lockstep, number, problem))
            for number, problem in enumerate(problems)
        ]
        try:
            for one in asyncio.as_completed(found):
                yield await one
        finally:
            for task in found:
                task.cancel()


async def _outcome(
    lockstep: Lockstep[Response], number: int, problem: Problem
) -> tuple[int, Outcome]:
    try:
        return number, await lockstep.answer(problem)
    except PromptFailed as failed:
        return number, failed
    except Exception as error:
        error.add_note(f"while answering prompt {problem.prompt_id}")
        raise
