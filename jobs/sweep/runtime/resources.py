"""The actors and the training group of a run, each started at its first use."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.machines import ClusterConfig

if TYPE_CHECKING:
    from jobs.sweep.training_group import TrainerGroup

Actor = Any  # Ray's actor handles have no type


def threads_per_process(cluster: ClusterConfig, processes: int) -> int:
    """Return the torch threads per process when ``processes`` share ``cluster.threads``.

    The default of ``cluster.threads`` is all cores. The result is at least 1.
    """
    return max((cluster.threads or os.cpu_count() or 1) // processes, 1)


@dataclass
class Resources:
    """Processes that the steps of a run share.

    Attributes:
        cluster: shares and numbers of processes.
        training_workers: processes of the training group.
        storage: folder of Ray Train's files; one group at a time uses it.
    """

    cluster: ClusterConfig
    training_workers: int
    storage: Path
    _pools: dict[str, list[Actor]] = field(default_factory=dict)
    _trainer: "TrainerGroup | None" = None

    @property
    def device(self) -> str:
        """The torch device of the actors."""
        return "cuda" if self.cluster.actor_gpus else "cpu"

    def threads(self, processes: int) -> int:
        """Return the torch threads per process when ``processes`` share ``cluster.threads``."""
        return threads_per_process(self.cluster, processes)

    def policy_actors(self) -> list[Actor]:
        """Return the policy actors."""
        from actors.policy import PolicyActor

        return self._pool("policy", PolicyActor, self.cluster.policy_actors)

    def reward_actors(self) -> list[Actor]:
        """Return the reward actors."""
        from actors.reward import RewardActor

        return self._pool("reward", RewardActor, self.cluster.reward_actors)

    def search_actors(self) -> list[Actor]:
        """Return the search actors, each of which holds a policy and a reward model."""
        from actors.search import SearchActor

        return self._pool("search", SearchActor, self.cluster.search_actors)

    def trainer(self) -> "TrainerGroup":
        """Return the warm training group."""
        from jobs.sweep.training_group import TrainerGroup

        if self._trainer is None:
            self._trainer = TrainerGroup(
                workers=self.training_workers,
                cpus=self.cluster.train_worker_cpus,
                gpus=self.cluster.train_worker_gpus,
                threads=self.threads(self.training_workers),
                data_task_cpus=self.cluster.data_task_cpus,
                storage=str(self.storage),
            )
        return self._trainer

    def close(self, wait: bool = True) -> None:
        """End the training group and the actors; a later step starts new ones.

        Args:
            wait: whether to wait for the training group, which takes seconds. If not, Ray ends it
                when this process ends.
        """
        import ray

        if self._trainer is not None and wait:
            self._trainer.close()
        self._trainer = None
        for actors in self._pools.values():
            for actor in actors:
                ray.kill(actor)
        self._pools.clear()

    def _pool(self, name: str, actor_class: Callable[..., Any], count: int) -> list[Actor]:
        if name not in self._pools:
            # Outside any placement group: that of a trial only has resources for the trial itself.
            options: dict[str, Any] = {
                "num_cpus": self.cluster.actor_cpus, "scheduling_strategy": "DEFAULT",
            }  # fmt: skip
            if self.cluster.actor_gpus:
                options["num_gpus"] = self.cluster.actor_gpus
            remote: Any = actor_class
            self._pools[name] = [remote.options(**options).remote() for _ in range(count)]
        return list(self._pools[name])
