"""The MLflow side of a job: its tracker, and the parent run that ends with the job's status."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console

from jobs.command_line.exit_codes import FAILED, OK
from orchestrator.config.load import ConfigError, to_yaml
from orchestrator.config.tree import Config
from orchestrator.masking import mask_secrets
from orchestrator.tracking.location import StoreLocation, adopt_earlier_store, location_of
from orchestrator.tracking.reachability import StoreUnavailable

FLUSH_SECONDS = 60.0  # at the end, to wait for a store that is away

if TYPE_CHECKING:  # imported later, after the checks of the config
    from jobs.sweep.runtime.workspace import Workspace
    from orchestrator.stages.store import Store
    from orchestrator.tracking.mlflow_tracker import RunRef, Tracker


def tracker_of(config: Config, store: "Store", console: Console) -> "Tracker":
    """Return the MLflow tracker of a job, and print which store it uses.

    Raises:
        ConfigError: it cannot be opened.
    """
    from orchestrator.tracking.mlflow_tracker import Tracker

    location = location_of(config.tracking.uri, store.local)
    console.print(f"MLflow: {mask_secrets(location.uri)} ({location.source})", highlight=False)

    def report(sentence: str) -> None:
        console.print(f"MLflow: {sentence}", highlight=False, soft_wrap=True)

    if moved := adopt_earlier_store(location, store.local):
        report(moved)

    with tracking_errors(location):
        experiment = config.tracking.experiment or config.data.task_name()
        return Tracker(location.uri, experiment, report=report)


@contextmanager
def tracking_errors(location: StoreLocation) -> Iterator[None]:
    """Convert the error of a store that cannot be opened to a ConfigError.

    Raises:
        ConfigError: the block raised StoreUnavailable.
    """
    try:
        yield
    except StoreUnavailable as error:
        valid = "valid: an MLflow server or database that answers, a folder, or null"
        uri = mask_secrets(location.uri)
        raise ConfigError(f"{location.source} = {uri}: {error}; {valid}") from error


def run_tracked(
    tracker: "Tracker",
    key: str,
    name: str,
    params: Mapping[str, object],
    workspace: "Workspace",
    work: Callable[["RunRef"], int],
) -> int:
    """Do ``work`` with a parent run, and end that run with the status of the work.

    Closes the workspace's resources in every case.

    Args:
        tracker: writes the parent run.
        key: identity of the parent run; an existing run with the same key is continued.
        name: name of the parent run in the UI.
        params: params of the parent run, besides task and seed.
        workspace: config, console and resources of the job.
        work: is called with the parent run, and returns the exit code.

    Returns:
        The exit code: that of ``work``, or 1 for a failed stage. A KeyboardInterrupt ends the run
        as KILLED, any other exception as FAILED; both are raised again.
    """
    from jobs.sweep.runner import StageFailed

    config, console = workspace.config, workspace.console
    output = str(workspace.files.store.local)
    shared = {"task": config.data.task_name(), "seed": config.seed}
    interrupted = False
    parent = tracker.start_sweep(key, name, {**shared, **params}, to_yaml(config), output)
    try:
        code = work(parent)
    except KeyboardInterrupt:
        interrupted = True
        tracker.finish(parent, "KILLED")
        raise
    except StageFailed as error:
        tracker.finish(parent, "FAILED")
        console.print(f"failed: {error}", style="red", soft_wrap=True)
        console.print("finished stages are kept: fix the cause and run the same command again")
        console.print_exception(max_frames=20)
        return FAILED
    except BaseException:
        with suppress(Exception):  # MLflow may be the cause
            tracker.finish(parent, "FAILED")
        raise
    finally:
        workspace.resources.close(wait=not interrupted)
    tracker.finish(parent, "FINISHED" if code == OK else "FAILED")
    tracker.flush(FLUSH_SECONDS)
    return code


def parent_run_key(parts: Sequence[str]) -> str:
    """Return the key of a parent run: a hash of all ``parts``, such as stage keys.

    Jobs with equal parts use the same parent run.
    """
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
