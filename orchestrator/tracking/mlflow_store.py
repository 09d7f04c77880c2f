"""Open an MLflow store: create its database and experiment, safely beside other jobs."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from orchestrator.masking import mask_secrets
from orchestrator.tracking.location import sqlite_file, sqlite_uri
from orchestrator.tracking.reachability import TIMEOUT_S, StoreUnavailable, check_reachable

# Codes of MLflow's errors that mean a store that is away or busy.
_TEMPORARY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
_CREATION_SECONDS = 120.0  # limit of waiting for another job that creates the same database
_FOR_ALL = 0o666  # mode of the lock file, before the umask: colleagues lock it too

# MLflow would retry a request for minutes; the tracker's outbox does that between other work.
for _variable, _value in (
    ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
    ("MLFLOW_HTTP_REQUEST_TIMEOUT", str(int(TIMEOUT_S))),
):
    os.environ.setdefault(_variable, _value)
# Without this, creating a database prints some 80 lines about migrations.
for _name in ("alembic", "mlflow.store.db.utils"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True)
class OpenStore:
    """A store that answers, and one of its experiments.

    Attributes:
        uri: its tracking URI, with an absolute path.
        client: MLflow's client of the store.
        experiment_id: id of the experiment.
    """

    uri: str
    client: MlflowClient
    experiment_id: str


def open_store(uri: str, experiment: str, artifact_root: str | None) -> OpenStore:
    """Open a store; create database and experiment if they do not exist (4 s).

    Args:
        uri: tracking URI.
        experiment: name of the experiment; restored if it was deleted.
        artifact_root: folder or URI of the artifacts of a new experiment; None: `mlartifacts`
            beside a SQLite file, otherwise the server's default.

    Raises:
        StoreUnavailable: MLflow does not support the store, or it does not answer.
    """
    try:
        database = sqlite_file(uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            uri = sqlite_uri(database)
            artifact_root = artifact_root or str(database.parent / "mlartifacts")
        if artifact_root is not None and "://" not in artifact_root:
            artifact_root = Path(artifact_root).resolve().as_uri()
        check_reachable(uri)
        with _creation_lock(database):
            client = MlflowClient(tracking_uri=uri)
            experiment_id = _experiment_id(client, experiment, artifact_root)
            _remove_misread_folder(uri, database)
            return OpenStore(uri, client, experiment_id)
    except Timeout as error:
        raise StoreUnavailable(
            f"another process has been creating it for {_CREATION_SECONDS:g} s"
        ) from error
    except (MlflowException, OSError, ValueError, ImportError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise StoreUnavailable(mask_secrets(first)) from error


def is_temporary(error: Exception) -> bool:
    """Whether an error means that the store is away or busy."""
    if isinstance(error, MlflowException):
        return error.error_code in _TEMPORARY
    return isinstance(error, ConnectionError | TimeoutError)


@contextmanager
def _creation_lock(database: Path | None) -> Iterator[None]:
    """Let one job at a time create or migrate an SQLite database, which MLflow does unlocked."""
    if database is None:
        yield
        return
    file = database.with_name(f".{database.name}.lock")
    with FileLock(file, _CREATION_SECONDS, mode=_FOR_ALL):
        yield


def _remove_misread_folder(uri: str, database: Path | None) -> None:
    """Remove the empty folder that MLflow makes of an encoded path, which it does not decode."""
    misread = Path(uri.removeprefix("sqlite:///")).parent
    if database is not None and misread != database.parent:
        with suppress(OSError):  # not empty, so another one
            misread.rmdir()


def _experiment_id(client: MlflowClient, name: str, artifact_root: str | None) -> str:
    experiment: Experiment | None = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_root))
        except MlflowException:  # another job has just created it, or it cannot be created
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":  # it still occupies the name
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)
