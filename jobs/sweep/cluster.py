"""Connects to Ray: a running cluster or a new local one, after a check that the plan fits in it."""

import atexit
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import ray
from ray._private import ray_constants
from ray._private.utils import read_ray_address
from rich.console import Console

from jobs.command_line.quiet import SETTINGS, filter_native_errors
from jobs.command_line.stop_signals import interrupt_on_stop_signals
from jobs.sweep.cluster_budget import check_budget, check_gpus
from orchestrator import THREADS
from orchestrator.config.errors import reason_of
from orchestrator.config.load import ROOT, ConfigError
from orchestrator.config.tree import Config

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the entry point of a submitted job
UPLOAD_LEFT_OUT = ["runs", ".venv*", ".git", "mlflow.db", "mlartifacts", "**/__pycache__"]
CONNECT_SECONDS = 8.0  # limit of connecting to a cluster
LOOPBACK = "127.0.0.1"
START_ATTEMPTS = 4
TIMED_OUT = "timed out during startup"  # in Ray's error
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
        **{name: os.environ.get(name, value) for name, value in (MEMORY | SETTINGS).items()},
        # Ray Train's workers load torch before anything of ours.
        **{name: os.environ[name] for name in THREADS if name in os.environ},
    }


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
    token = _closed_to_others()
    # As Ray does on macOS: all its processes listen on loopback.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    address = start_local(os.cpu_count() or 1, dashboard)
    where = f"; dashboard http://{address}, its token is in {token}"
    interrupt_on_stop_signals()
    console.print(
        f"Ray: started a local cluster{where if dashboard else ''}", highlight=False, soft_wrap=True
    )


def start_local(cpus: int, dashboard: bool) -> str:
    """Start a local Ray in this process; return the address of its dashboard.

    Ray gives its node 30 s to start, which a busy machine exceeds: it is then tried again.
    """
    before = set(psutil.Process().children(recursive=True))
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            started = ray.init(
                address="local", num_cpus=cpus, include_dashboard=dashboard,
                dashboard_host=LOOPBACK, log_to_driver=False, logging_level="ERROR",
            )  # fmt: skip
            break
        except Exception as error:  # Ray raises no class of its own
            if TIMED_OUT not in str(error) or attempt == START_ATTEMPTS:
                raise
            for process in set(psutil.Process().children(recursive=True)) - before:
                with suppress(psutil.Error):
                    process.kill()
    return str(started.dashboard_url)


def _closed_to_others() -> Path:
    """Give Ray a token that only this user can read; return its file.

    A local Ray asks for a token, unless RAY_AUTH_MODE is set. A token that the user sets stays.
    """
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="prm-ray-"))  # for this user alone
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        (folder / "token").touch(mode=0o600)
        (folder / "token").write_text(secrets.token_hex())
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(folder / "token")
    return Path(os.environ["RAY_AUTH_TOKEN_PATH"])


def _joined(variables: dict[str, str], console: Console) -> bool:
    """Join a running cluster; return whether there is one.

    Raises:
        ConfigError: RAY_ADDRESS names a cluster that does not answer.
    """
    in_job, named = JOB_VARIABLE in os.environ, os.environ.get("RAY_ADDRESS")
    address = "auto" if in_job else named or read_ray_address()
    if not address or address == "local":
        return False
    if in_job:  # the variables that the submitter sets are in ours, which would be a conflict
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    runtime = {"env_vars": variables} if in_job else _runtime(variables)
    try:
        _check_answers(read_ray_address() if named in (None, "auto") else named)
        ray.init(address=address, runtime_env=runtime, log_to_driver=False, logging_level="ERROR")
    except OSError as error:
        if in_job or named:
            raise ConfigError(
                f"RAY_ADDRESS = {address!r}: no Ray cluster answers there ({reason_of(error)});"
                " valid: the address of a running one, or unset it to start a local one"
            ) from error
        return False  # `ray start` wrote this file; after a crash it still exists
    interrupt_on_stop_signals()
    console.print(f"Ray: joined the cluster at {ray.get_runtime_context().gcs_address}")
    return True


def _check_answers(address: str | None) -> None:
    """Check that a process listens at the address of a cluster; Ray itself waits for minutes.

    Raises:
        OSError: it does not, or the address has no host and port.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        raise OSError("valid: HOST:PORT")
    with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
        pass


def _runtime(variables: dict[str, str]) -> dict[str, object]:
    return {"env_vars": variables, "working_dir": str(ROOT), "excludes": UPLOAD_LEFT_OUT}
