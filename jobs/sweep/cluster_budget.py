"""What a plan needs of a cluster at once, checked against what the cluster has."""

from collections.abc import Sequence

from orchestrator.config.load import ConfigError
from orchestrator.config.tree import Config

SMALLEST_SHARE = 0.01


def needed_cpus(config: Config) -> float:
    """Return the logical CPUs that training workers, actors and data tasks need at once."""
    return _cpus(config, _actors(config))


def _cpus(config: Config, actors: int) -> float:
    cluster = config.cluster
    training = config.training.workers * cluster.train_worker_cpus
    return training + actors * cluster.actor_cpus + 2 * cluster.data_task_cpus


def _pools(config: Config) -> int:
    """The number of actors, without the search actors, which only a sweep has."""
    cluster = config.cluster
    return cluster.policy_actors + cluster.reward_actors + cluster.reference_actors


def _actors(config: Config) -> int:
    return _pools(config) + config.cluster.search_actors


def check_budget(config: Config, cpus: float) -> None:
    """Refuse a plan that the cluster has too few CPUs for.

    Raises:
        ConfigError: it needs more logical CPUs than the cluster has.
    """
    needed = needed_cpus(config)
    if needed > cpus + SMALLEST_SHARE:
        each = config.cluster.train_worker_cpus
        training_cpus = cpus - needed + config.training.workers * each
        max_workers = int(training_cpus / each)
        fewer = f"at most {max_workers} workers (cluster.train_worker_cpus = {each:g} each), "
        raise ConfigError(
            f"training.workers = {config.training.workers}: training workers, actors and data tasks"
            f" need {needed:g} CPUs together, and the cluster has {cpus:g}; valid:"
            f" {fewer if max_workers > 0 else ''}fewer actors, or smaller *_cpus fields of cluster"
        )


def check_trials(
    configs: Sequence[Config], concurrent: int, starts_actors: bool, cpus: float, gpus: float | None
) -> None:
    """Refuse trials of a tuning that the cluster has too few CPUs or GPUs for.

    Args:
        configs: configs of the trials.
        concurrent: trials at once, each an actor with a training group and its data tasks.
        starts_actors: whether a trial starts policy, reward or reference actors too.
        cpus: logical CPUs of the cluster.
        gpus: its GPUs; None if their number is not known yet.

    Raises:
        ConfigError: they need more.
    """

    def needed_gpus(config: Config) -> float:
        cluster = config.cluster
        training = config.training.workers * cluster.train_worker_gpus
        return training + starts_actors * _pools(config) * cluster.actor_gpus

    def needed(config: Config) -> float:
        return _cpus(config, 1 + starts_actors * _pools(config))

    shares = {"CPUs": (max(map(needed, configs)), cpus)}
    if gpus is not None:
        shares["GPUs"] = (max(map(needed_gpus, configs)), gpus)
    for name, (each, there) in shares.items():
        if concurrent * each > there + SMALLEST_SHARE:
            most = int((there + SMALLEST_SHARE) / each)
            raise ConfigError(
                f"--concurrent {concurrent}: the actors, training workers and data tasks of each"
                f" trial need {each:g} {name} together, and the cluster has {there:g}; valid:"
                f" {f'at most {most}, or ' if most else ''}smaller *_{name.lower()} fields of"
                " cluster"
            )


def check_gpus(config: Config, gpus: float) -> None:
    """Refuse a plan that the cluster has too few GPUs for.

    Raises:
        ConfigError: it needs more GPUs than the cluster has.
    """
    cluster = config.cluster
    training = config.training.workers * cluster.train_worker_gpus
    needed = training + _actors(config) * cluster.actor_gpus
    if needed > gpus + SMALLEST_SHARE:
        field = "actor_gpus" if cluster.actor_gpus else "train_worker_gpus"
        raise ConfigError(
            f"cluster.{field} = {getattr(cluster, field):g}: {config.training.workers} training"
            f" workers and {_actors(config)} actors need {needed:g} GPUs, the cluster has {gpus:g};"
            " valid: smaller *_gpus fields of cluster, fewer processes, or 0 to compute on CPUs"
        )
