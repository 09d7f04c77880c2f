"""The Ray cluster of a file job, and the check that its actors fit in it."""

from collections.abc import Mapping

import ray
from rich.console import Console

from jobs.batch.options import FileJobOptions
from jobs.sweep import cluster
from orchestrator.config.load import ConfigError

ACTOR_CPUS = 0.1  # logical CPUs, as few as in a sweep, so that both run in one cluster


def connect(
    options: FileJobOptions, console: Console, cpus: float = ACTOR_CPUS, other_actors: int = 0
) -> None:
    """Join or start Ray, and check that the actors fit in the cluster.

    Args:
        options: number and device of the actors.
        console: shows which cluster is used.
        cpus: logical CPUs of an actor.
        other_actors: further actors of the job with as many CPUs.

    Raises:
        ConfigError: the cluster has too few CPUs or GPUs for the actors.
    """
    cluster.connect(console, dashboard=False)
    try:
        check_resources(options, ray.cluster_resources(), cpus, other_actors)
    except ConfigError:
        ray.shutdown()
        raise


def check_resources(
    options: FileJobOptions, resources: Mapping[str, float], cpus: float, other_actors: int
) -> None:
    """Check that a cluster has the CPUs and GPUs of the actors.

    Args:
        options: number and device of the actors.
        resources: the CPUs and GPUs of the cluster, as Ray names them.
        cpus: logical CPUs of an actor.
        other_actors: further actors of the job with as many CPUs.

    Raises:
        ConfigError: it has too few of them.
    """
    gpus, available = resources.get("GPU", 0), resources.get("CPU", 0)
    if options.device == "cuda" and not gpus:
        raise ConfigError("--device = 'cuda': the Ray cluster has no GPU; valid: cpu")
    capacity = available / cpus - other_actors
    if capacity < 1:
        processes = (
            f"one actor and {other_actors} further processes" if other_actors else "one actor"
        )
        valid = "a larger cluster" if cpus == ACTOR_CPUS else "fewer --threads, or a larger cluster"
        raise ConfigError(
            f"--actors = {options.actors}: the cluster has {available:g} CPUs, too few for"
            f" {processes} ({cpus:g} CPUs each); valid: {valid}"
        )
    if options.device == "cuda":
        capacity = min(capacity, gpus)
    if options.actors > capacity:
        raise ConfigError(
            f"--actors = {options.actors}: the cluster has room for {int(capacity)} on"
            f" {options.device}; valid: at most {int(capacity)}"
        )
