"""The Ray cluster of a file job, and the check that its actors have room."""

import ray
from rich.console import Console

from jobs.batch.options import FileJobOptions
from jobs.sweep import cluster
from orchestrator.config.load import ConfigError

ACTOR_CPUS = 0.1  # logical CPUs, as few as in a sweep, so that both run in one cluster


def connect(
    options: FileJobOptions, console: Console, cpus: float = ACTOR_CPUS, others: int = 0
) -> None:
    """Join or start Ray, and check that the actors have room.

    Args:
        options: number and device of the actors.
        console: shows which cluster is used.
        cpus: logical CPUs of an actor.
        others: further actors of the job with as many CPUs.

    Raises:
        ConfigError: the cluster has no room for so many actors.
    """
    cluster.connect(console, dashboard=False)
    resources = ray.cluster_resources()
    room = resources.get("CPU", 0) / cpus - others
    if options.device == "cuda":
        room = min(room, resources.get("GPU", 0))
    if options.actors > room:
        ray.shutdown()
        raise ConfigError(
            f"--actors = {options.actors}: the cluster has room for {max(int(room), 0)} on"
            f" {options.device}; valid: at most that many"
        )
