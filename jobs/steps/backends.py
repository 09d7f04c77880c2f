"""The pools of a sweep: its policy and reward actors, with the models that they answer by.

Each actor computes with its share of the cores: on a CPU two processes of one thread each are
faster than one of two. Each stage finds them with their model loaded and no keys and values kept:
what it counts, seconds too, does not depend on what ran before it.
"""

from collections.abc import Sequence
from typing import Any

from actors.backends import ActorPolicy, ActorReward
from actors.policy import PolicyPlace
from actors.reward import RewardPlace
from jobs.steps.sweep import Sweep
from orchestrator.scorers.registry import chat_of
from orchestrator.search.engines import Ids

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


def reward_of(sweep: Sweep, scorer: str, prompts: dict[Ids, Ids] | None = None) -> ActorReward:
    """A scorer of the sweep; ``prompts`` gives its own prompt ids for the policy's."""
    actors, spec = sweep.reward_actors(), sweep.scorer(scorer)
    place = RewardPlace(
        spec, sweep.config.scoring.position, sweep.checkpoint("policy"), sweep.device,
        sweep.threads(len(actors)),
    )  # fmt: skip
    _prepare(actors, place)
    return ActorReward(actors, place, chat_of(spec), prompts)


def _prepare(actors: Sequence[Any], place: Any) -> None:
    """Waits until all have loaded ``place``; that one is dead is told by the first request."""
    import ray

    ray.wait([actor.forget.remote(place) for actor in actors], num_returns=len(actors))
