"""Connects to Ray: a running cluster or a new local one, after a check that the plan fits in it."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import ray
from ray._private.utils import read_ray_address
from rich.console import Console

from jobs.command_line.quiet import SETTINGS, filter_native_errors
from jobs.command_line.stop_signals import interrupt_on_stop_signals
from orchestrator import THREADS
from orchestrator.config.load import ROOT, ConfigError
from orchestrator.config.tree import Config

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the entry point of a submitted job
UPLOAD_LEFT_OUT = ["runs", ".venv*", ".git", "mlflow.db", "mlartifacts", "**/__pycache__"]
SMALLEST_SHARE = 0.01
NICENESS = "0"  # workers' niceness; at Ray's 15, other processes would take their cores
STARTUP_CONCURRENCY = "8"  # workers: Ray warns of four times as many, and takes the cores' number
# Each step allocates and frees large tensors. With memory that malloc keeps, and with huge pages,
# this causes no page faults, which otherwise take a third of the CPU time of sampling.
MEMORY = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_ARENA_MAX": "1",  # search actors compute in a thread, whose own arena would be trimmed
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}


def environment() -> dict[str, str]:
    """Return the environment variables of workers: paths, memory, threads, quiet libraries."""
    tools = Path(sys.executable).parent
    path = os.environ.get("PATH", "")
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PATH": path if str(tools) in path.split(os.pathsep) else f"{tools}{os.pathsep}{path}",
        "TORCH_EXTENSIONS_DIR": os.environ.get(
            "TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions")
        ),
        **{name: os.environ.get(name, value) for name, value in MEMORY.items()},
        # Ray Train's workers load torch before anything of ours.
        **{name: os.environ[name] for name in THREADS if name in os.environ},
        **SETTINGS,
    }


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


def join(
    config: Config, console: Console, check: Callable[[float, float | None], None] | None = None
) -> None:
    """Connect to the running cluster, else start a local one with its dashboard on loopback.

    A cluster counts as running when this is one of its jobs, RAY_ADDRESS names it, or `ray start`
    made it on this machine; the private cluster of another sweep, which ends with it, does not.

    ``check`` is called with the CPUs and GPUs (None while their number is unknown), and may raise.

    Raises:
        ConfigError: the plan does not fit in the cluster; nothing is left running.
    """

    def fits() -> None:
        check_budget(config, os.cpu_count() or 1)
        if check is not None:
            check(os.cpu_count() or 1, None)

    connect(console, before_start=fits)
    try:
        resources = ray.cluster_resources()
        check_budget(config, float(resources.get("CPU", 0)))
        check_gpus(config, float(resources.get("GPU", 0)))
        if check is not None:
            check(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)))
    except ConfigError:
        ray.shutdown()
        raise


def connect(
    console: Console, before_start: Callable[[], None] | None = None, dashboard: bool = True
) -> None:
    """As ``join``, for a job without a config; ``before_start`` may refuse to start a cluster.

    Raises:
        ConfigError: RAY_ADDRESS names a cluster that does not answer.
    """
    filter_native_errors()
    variables = environment()
    os.environ.update(variables)
    if _joined(variables, console):
        return
    if before_start is not None:
        before_start()
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", STARTUP_CONCURRENCY)
    os.environ.setdefault("RAY_worker_niceness", NICENESS)
    started = ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=dashboard,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level="ERROR",
    )
    where = f"; dashboard http://{started.dashboard_url}" if dashboard else ""
    interrupt_on_stop_signals()
    console.print(f"Ray: started a local cluster{where}")


def _joined(variables: dict[str, str], console: Console) -> bool:
    """Join a running cluster; return whether there is one.

    Raises:
        ConfigError: RAY_ADDRESS names a cluster that does not answer.
    """
    in_job, named = JOB_VARIABLE in os.environ, os.environ.get("RAY_ADDRESS")
    address = "auto" if in_job else named or read_ray_address()
    if not address:
        return False
    runtime = {"env_vars": variables} if in_job else _runtime(variables)
    try:
        ray.init(address=address, runtime_env=runtime, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        if in_job or named:
            raise ConfigError(
                f"RAY_ADDRESS = {address!r}: no Ray cluster answers there; valid: the address of a"
                " running one, or unset it to start a local one"
            ) from error
        return False  # `ray start` wrote this file; after a crash it still exists
    interrupt_on_stop_signals()
    console.print(f"Ray: joined the cluster at {ray.get_runtime_context().gcs_address}")
    return True


def _runtime(variables: dict[str, str]) -> dict[str, object]:
    return {"env_vars": variables, "working_dir": str(ROOT), "excludes": UPLOAD_LEFT_OUT}
