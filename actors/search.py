"""The search actor: policy and reward model in one process, and the search of its share of prompts.

Nothing but prompts and responses travels, and neither model waits for a call: the way for cores
and for a card that both models share. A prompt's requests never leave the actor that holds its keys
and values.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError

from actors.policy import RESTARTS, PolicyPlace
from actors.pool import PoolIsDead
from actors.reward import RewardPlace
from orchestrator.engines.chat import load_chat
from orchestrator.engines.policy import HuggingFacePolicy
from orchestrator.records import Response
from orchestrator.scorers.registry import load_scorer
from orchestrator.search.engines import (
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.lockstep import run_wave
from orchestrator.search.problem import Problem
from orchestrator.search.registry import METHODS


@dataclass(frozen=True)
class Search:
    """A method by its name in the registry, its parameters, and how many prompts at once."""

    method: str
    parameters: Any
    places: int


class _Engines:
    """Both engines of this process as search backends."""

    def __init__(self, policy: PolicyPlace, reward: RewardPlace | None) -> None:
        torch.set_num_threads(policy.threads)
        self._policy = HuggingFacePolicy(
            policy.checkpoint, policy.temperature, policy.top_p, policy.device, ends=policy.ends
        )
        self._reward = None
        if reward is not None:
            chat = load_chat(reward.policy)
            self._reward = load_scorer(reward.scorer, reward.position, chat, reward.device)

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        return self._policy.sample(requests)

    async def top(self, requests: list[TopRequest]) -> list[TopTokens]:
        return self._policy.top(requests)

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        if self._reward is None:
            raise ValueError("a score request, but this search has no reward model")
        return self._reward.score(requests)


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
class SearchActor:
    """Searches with a policy and a reward model of its own."""

    def __init__(self, policy: PolicyPlace, reward: RewardPlace | None) -> None:
        self._engines = _Engines(policy, reward)

    def ready(self) -> None:
        """Answers once both models are loaded."""

    def process(self) -> int:
        """The number of its process."""
        return os.getpid()

    async def run(
        self, search: Search, problems: Sequence[Problem]
    ) -> AsyncIterator[tuple[int, Response]]:
        """Gives each problem's number and response as it is finished."""
        done: asyncio.Queue[tuple[int, Response] | None] = asyncio.Queue()
        numbers = {problem.prompt_id: number for number, problem in enumerate(problems)}
        wave = asyncio.ensure_future(
            run_wave(
                problems,
                METHODS[search.method].bind(search.parameters),
                self._engines,
                self._engines,
                places=search.places,
                finished=lambda one: done.put_nowait((numbers[one.prompt_id], one)),
            )
        )
        wave.add_done_callback(lambda _: done.put_nowait(None))
        while (found := await done.get()) is not None:
            yield found
        await wave  # raises what ended it


async def search_all(
    actors: Sequence[Any],
    search: Search,
    problems: Sequence[Problem],
    finished: Callable[[Response], None] | None = None,
) -> list[Response]:
    """Shares problems out among search actors; response i belongs to problem i.

    Ray starts an actor that died again and its share with it; what it had given counts once. What
    an actor that is gone for good had not given goes to the others.

    Raises:
        PoolIsDead: none is left.
    """
    answers: dict[int, Response] = {}
    alive = list(actors)

    def told(number: int, response: Response) -> None:
        if number not in answers:
            answers[number] = response
            if finished is not None:
                finished(response)

    while len(answers) < len(problems):
        todo = [number for number in range(len(problems)) if number not in answers]
        shares = [todo[n :: len(alive)] for n in range(len(alive))]

        found = await asyncio.gather(
            *(
                _answered(actor, search, {number: problems[number] for number in share}, told)
                for actor, share in zip(alive, shares, strict=True)
            )
        )
        why = next((error for error in found if error is not None), None)
        alive = [actor for actor, error in zip(alive, found, strict=True) if error is None]
        if not alive:
            raise PoolIsDead(f"all {len(actors)} search actors are dead: {why}") from why
    return [answers[number] for number in range(len(problems))]


async def _answered(
    actor: Any,
    search: Search,
    share: dict[int, Problem],
    told: Callable[[int, Response], None],
) -> RayActorError | None:
    """Tells each response of one actor's share as it comes; the error where the actor is gone."""
    numbers = list(share)
    stream = actor.run.options(num_returns="streaming").remote(search, list(share.values()))
    try:
        async for reference in stream:
            place, response = await reference
            told(numbers[place], response)
    except RayActorError as error:
        return error
    return None
