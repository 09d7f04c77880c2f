"""The actor pools of a sweep with models loaded: policy, reward, and search with both.

Each actor uses its share of the cores: on a CPU two processes with one thread each are faster than
one process with two. Before a stage starts, its actors have loaded their model and cleared their KV
caches, so costs, including seconds, do not depend on earlier stages.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from actors.backends import ActorPolicy, ActorReward
from actors.policy import PolicySpec
from actors.reward import RewardSpec
from actors.search import ModelEngines, Search
from actors.search_stream import search_all
from jobs.sweep.runtime.resources import Actor, Resources
from orchestrator.choices import Dtype, Engine, Position
from orchestrator.config.decoding import DecodingConfig
from orchestrator.records import Prompt, Response
from orchestrator.scorers.loading import chat_of
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.method import AnySearchMethod
from orchestrator.search.problem import Problem

FULL_LENGTH = 10**6  # a prefix length beyond every response: the complete response


@dataclass(frozen=True)
class Engines:
    """The run's policy and scorers in actor pools.

    Attributes:
        resources: start the actors at their first use.
        checkpoint: checkpoint of the policy, folder or hub name.
        decoding: how the policy samples.
        position: where a prefix is scored.
    """

    resources: Resources
    checkpoint: str
    decoding: DecodingConfig
    position: Position

    def policy(self, dtype: Dtype = "float32") -> ActorPolicy:
        """Return the pool of policy actors, loaded."""
        actors = self.resources.policy_actors()
        spec = self._policy(len(actors), dtype)
        _load(actors, spec)
        return ActorPolicy(actors, spec)

    def reward(self, scorer: ScorerSpec, dtype: Dtype = "float32") -> ActorReward:
        """Return the pool of reward actors with a scorer, loaded."""
        actors = self.resources.reward_actors()
        spec = self._reward(scorer, len(actors), dtype)
        _load(actors, spec)
        return ActorReward(actors, spec, chat_of(scorer))

    def whole_rewards(
        self, scorer: ScorerSpec, responses: Sequence[tuple[Prompt, str]], dtype: Dtype = "float32"
    ) -> list[float]:
        """Return r(x, y) of whole responses."""
        scores = asyncio.run(self.reward(scorer, dtype).prefix_scores(responses, [FULL_LENGTH]))
        return [score[0] for score in scores]

    def search(
        self,
        method: AnySearchMethod,
        scorer: ScorerSpec | None,
        problems: Sequence[Problem],
        finished: Callable[[object], None],
        max_concurrent: int,
        engine: Engine,
        dtype: Dtype,
    ) -> list[Response]:
        """Return the responses of the search actors, in the order of the problems.

        Actors that search at the same time share the wall time: each response's seconds are
        divided by their number.
        """
        import ray

        actors = self.resources.search_actors()
        policy = replace(self._policy(len(actors), dtype), engine=engine)
        reward = None
        if scorer is not None:
            reward = self._reward(replace(scorer, engine=engine), len(actors), dtype)
        search = Search(method, max_concurrent, ModelEngines(policy, reward))
        ray.wait([actor.ready.remote(search) for actor in actors], num_returns=len(actors))
        responses = asyncio.run(search_all(actors, search, problems, finished))
        return [
            replace(one, cost=replace(one.cost, seconds=one.cost.seconds / len(actors)))
            for one in responses
        ]

    def _policy(self, actors: int, dtype: Dtype) -> PolicySpec:
        """Return the spec of the policy for one of ``actors`` actors."""
        resources = self.resources
        return PolicySpec(
            self.checkpoint, self.decoding.temperature, self.decoding.top_p,
            resources.device, resources.threads(actors), dtype=dtype,
            cache_mib=resources.cluster.policy_cache_mib,
        )  # fmt: skip

    def _reward(self, scorer: ScorerSpec, actors: int, dtype: Dtype) -> RewardSpec:
        """Return the spec of a scorer for one of ``actors`` actors."""
        resources = self.resources
        return RewardSpec(
            scorer, self.position, self.checkpoint, resources.device,
            resources.threads(actors), dtype, resources.cluster.reward_cache_mib,
        )  # fmt: skip


def _load(actors: Sequence[Actor], spec: PolicySpec | RewardSpec) -> None:
    """Wait until all actors have loaded a model; the first request reports a dead actor."""
    import ray

    ray.wait([actor.clear_cache.remote(spec) for actor in actors], num_returns=len(actors))
