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
from actors.policy import PolicySpec
from actors.reward import RewardSpec
from actors.search import ModelEngines, Search
from actors.search_stream import search_all
from jobs.sweep.sweep import Sweep
from orchestrator.choices import Dtype, Engine
from orchestrator.records import Response
from orchestrator.scorers.registry import chat_of
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.search.method import SearchMethod
from orchestrator.search.problem import Problem

WHOLE = 10**6  # a cut past every response: the whole of it


def policy_of(sweep: Sweep, dtype: Dtype = "float32") -> ActorPolicy:
    """The sweep's policy."""
    actors = sweep.policy_actors()
    place = _policy_place(sweep, len(actors), dtype)
    _prepare(actors, place)
    return ActorPolicy(actors, place)


def reward_of(sweep: Sweep, scorer: str, dtype: Dtype = "float32") -> ActorReward:
    """A scorer of the sweep."""
    actors, spec = sweep.reward_actors(), sweep.scorer(scorer)
    place = _reward_place(sweep, spec, len(actors), dtype)
    _prepare(actors, place)
    return ActorReward(actors, place, chat_of(spec))


def searched(
    sweep: Sweep,
    method: SearchMethod[Any],
    scorer: str | None,
    problems: Sequence[Problem],
    finished: Callable[[object], None],
) -> list[Response]:
    """Responses of the search actors, in the order of the problems.

    The seconds of actors that search at the same time are those of the wall.
    """
    import ray

    actors, asked = sweep.search_actors(), sweep.config.search
    engine: Engine = "vllm" if asked.engine == "vllm" else "transformers"
    policy = replace(_policy_place(sweep, len(actors), asked.dtype), engine=engine)
    reward = None
    if scorer is not None:
        spec = replace(sweep.scorer(scorer), engine=engine)
        reward = _reward_place(sweep, spec, len(actors), asked.dtype)
    search = Search(method, asked.max_concurrent, ModelEngines(policy, reward))
    ray.wait([actor.ready.remote(search) for actor in actors], num_returns=len(actors))
    found = asyncio.run(search_all(actors, search, problems, finished))
    return [
        replace(one, cost=replace(one.cost, seconds=one.cost.seconds / len(actors)))
        for one in found
    ]


def _policy_place(sweep: Sweep, actors: int, dtype: Dtype) -> PolicySpec:
    """The policy in one of so many actors."""
    config = sweep.config
    return PolicySpec(
        sweep.checkpoint("policy"), config.decoding.temperature, config.decoding.top_p,
        sweep.device, sweep.threads(actors), dtype=dtype,
        cache_mib=config.cluster.policy_cache_mib,
    )  # fmt: skip


def _reward_place(sweep: Sweep, spec: ScorerSpec, actors: int, dtype: Dtype) -> RewardSpec:
    """A scorer in one of so many actors."""
    config = sweep.config
    return RewardSpec(
        spec, config.scoring.position, sweep.checkpoint("policy"), sweep.device,
        sweep.threads(actors), dtype, config.cluster.reward_cache_mib,
    )  # fmt: skip


def _prepare(actors: Sequence[Any], place: Any) -> None:
    """Waits until all have loaded ``place``; that one is dead is told by the first request."""
    import ray

    ray.wait([actor.forget.remote(place) for actor in actors], num_returns=len(actors))
