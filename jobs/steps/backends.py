"""The actors of a sweep: pools of policy and reward actors, and those that search with both.

Each actor computes with its share of the cores: on a CPU two processes of one thread each are
faster than one of two. Each stage finds them with their model loaded and no keys and values kept:
what it counts, seconds too, does not depend on what ran before it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from actors.backends import ActorPolicy, ActorReward
from actors.policy import PolicyPlace
from actors.reward import RewardPlace
from actors.search import ModelEngines, Search
from actors.search_stream import search_all
from jobs.steps.sweep import Sweep
from orchestrator.records import Response
from orchestrator.scorers.registry import chat_of
from orchestrator.scorers.scorer import Engine
from orchestrator.search.problem import Problem

WHOLE = 10**6  # a cut past every response: the whole of it


def policy_of(sweep: Sweep) -> ActorPolicy:
    """The sweep's policy."""
    decoding, actors = sweep.config.decoding, sweep.policy_actors()
    place = PolicyPlace(
        sweep.checkpoint("policy"), decoding.temperature, decoding.top_p, sweep.device,
        sweep.threads(len(actors)),
    )  # fmt: skip
    _prepare(actors, place)
    return ActorPolicy(actors, place)


def reward_of(sweep: Sweep, scorer: str) -> ActorReward:
    """A scorer of the sweep."""
    actors, spec = sweep.reward_actors(), sweep.scorer(scorer)
    place = RewardPlace(
        spec, sweep.config.scoring.position, sweep.checkpoint("policy"), sweep.device,
        sweep.threads(len(actors)),
    )  # fmt: skip
    _prepare(actors, place)
    return ActorReward(actors, place, chat_of(spec))


def searched(
    sweep: Sweep,
    method: str,
    parameters: Any,
    scorer: str | None,
    problems: Sequence[Problem],
    finished: Callable[[object], None],
) -> list[Response]:
    """Responses of the search actors, in the order of the problems.

    The seconds of actors that search at the same time are those of the wall.
    """
    import ray

    actors, config = sweep.search_actors(), sweep.config
    threads = sweep.threads(len(actors))
    engine: Engine = "vllm" if config.search.engine == "vllm" else "transformers"
    checkpoint, decoding = sweep.checkpoint("policy"), config.decoding
    policy = PolicyPlace(
        checkpoint, decoding.temperature, decoding.top_p, sweep.device, threads, engine=engine
    )
    reward = None
    if scorer is not None:
        spec = replace(sweep.scorer(scorer), engine=engine)
        reward = RewardPlace(spec, config.scoring.position, checkpoint, sweep.device, threads)
    search = Search(method, parameters, config.search.wave_size, ModelEngines(policy, reward))
    ray.wait([actor.ready.remote(search) for actor in actors], num_returns=len(actors))
    found = asyncio.run(search_all(actors, search, problems, finished))
    return [
        replace(one, cost=replace(one.cost, seconds=one.cost.seconds / len(actors)))
        for one in found
    ]


def _prepare(actors: Sequence[Any], place: Any) -> None:
    """Waits until all have loaded ``place``; that one is dead is told by the first request."""
    import ray

    ray.wait([actor.forget.remote(place) for actor in actors], num_returns=len(actors))
