"""Write a sweep to MLflow: an experiment per task, a parent run per sweep, a child run per stage.

Only the driver writes. It uses MlflowClient with explicit run ids and not the global "active run",
so that an exported MLFLOW_RUN_ID has no effect. Every call can be repeated after a crash: runs are
identified by their tags, and values that are already logged are not logged again.
"""

import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from orchestrator.masking import mask_secrets
from orchestrator.tracking.entries import (
    finite_metrics,
    flat_params,
    legal_tags,
    measured,
    with_legal_names,
)
from orchestrator.tracking.reachability import TIMEOUT_S, StoreUnavailable, check_reachable

SWEEP_KEY, STAGE, STAGE_KEY = "sweep_key", "stage", "stage_key"
CHANGED_PARAM = "changed_param."  # prefix of tags: MLflow does not let a param change
CONFIG_FILE = "config.yaml"
_SQLITE = "sqlite:///"
_UI_HOST, _UI_PORT = "127.0.0.1", 5000

Status = Literal["FINISHED", "FAILED", "KILLED"]

# Without this, creating a database prints some 80 lines about migrations.
for _name in ("alembic", "mlflow.store.db.utils"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Tracker:
    """Writes the runs of one experiment.

    Args:
        uri: SQLite (`sqlite:////abs/mlflow.db`; folder and database are created), another database,
            or the http(s) address of a server, whose credentials are in MLflow's variables.
        experiment: name of the experiment; created, or restored if it was deleted.
        artifact_root: folder or URI of the artifacts of a new experiment; None: `mlartifacts`
            beside a SQLite file, otherwise the server's default.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: str | None = None) -> None:
        """Open the store; create database and experiment if they do not exist (4 s).

        Raises:
            StoreUnavailable: MLflow does not support the store, or it does not answer.
        """
        self._uri = uri
        try:
            if uri.startswith(_SQLITE):
                database = Path(uri.removeprefix(_SQLITE)).resolve()
                database.parent.mkdir(parents=True, exist_ok=True)
                self._uri = f"{_SQLITE}{database}"
                artifact_root = artifact_root or str(database.parent / "mlartifacts")
            if artifact_root is not None and "://" not in artifact_root:
                artifact_root = Path(artifact_root).resolve().as_uri()
            check_reachable(self._uri)
            with _single_attempt():
                self._client = MlflowClient(tracking_uri=self._uri)
                self.experiment_id = self._experiment(experiment, artifact_root)
        except (MlflowException, OSError, ValueError, ImportError) as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise StoreUnavailable(mask_secrets(first)) from error

    def start_sweep(
        self, sweep_key: str, name: str, params: Mapping[str, object], config_yaml: str
    ) -> str:
        """Return the id of the parent run of a sweep; an existing one continues, unless FINISHED.

        Args:
            sweep_key: the identity of the sweep, kept as a tag.
            name: the run's name in the UI.
            params: the settings of the sweep; nested mappings become dotted names.
            config_yaml: the resolved config, logged as an artifact with masked secrets.
        """
        run_id = self._run_with({SWEEP_KEY: sweep_key}, name)
        self.log(run_id, params)
        self._client.log_text(run_id, mask_secrets(config_yaml), CONFIG_FILE)
        return run_id

    def stage_run(self, sweep: str, stage: str, key: str) -> str:
        """Return the id of the child run of a stage or cell; created if it does not exist.

        Args:
            sweep: the run id of the parent.
            stage: the run's name in the UI.
            key: the identity of the stage's output.
        """
        return self._run_with({MLFLOW_PARENT_RUN_ID: sweep, STAGE_KEY: key}, stage, {STAGE: stage})

    def log(
        self,
        run_id: str,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        tags: Mapping[str, object] | None = None,
        artifacts: Sequence[Path] = (),
    ) -> None:
        """Log values that the run does not have yet; artifacts (files or folders) are replaced.

        A metric with a new value becomes the latest value. A param keeps its first value, since
        MLflow does not let it change; the new value goes to the tag `changed_param.NAME`. Metrics
        that are None, NaN or infinite are skipped.

        Raises:
            ValueError: two names become the same legal name.
        """
        logged = self._client.get_run(run_id).data
        new_params = flat_params(params or {})
        new_tags = legal_tags(tags or {})
        new_tags |= {
            CHANGED_PARAM + name: value
            for name, value in new_params.items()
            if logged.params.get(name, value) != value
        }
        now = _milliseconds()
        self._client.log_batch(  # splits into several calls at MLflow's limits
            run_id,
            metrics=[
                Metric(name, value, now, 0)
                for name, value in finite_metrics(metrics or {}).items()
                if logged.metrics.get(name) != value
            ],
            params=[
                Param(name, value)
                for name, value in new_params.items()
                if name not in logged.params
            ],
            tags=[RunTag(name, value) for name, value in new_tags.items()],
            synchronous=True,
        )
        for artifact in artifacts:
            self._client.log_artifact(run_id, str(artifact))

    def log_series(
        self, run_id: str, series: Mapping[str, Sequence[tuple[int, float | None]]]
    ) -> None:
        """Log curves, name -> (step, value) pairs; steps that the run has are skipped.

        Raises:
            ValueError: two names become the same legal name.
        """
        now = _milliseconds()
        points: list[Metric] = []
        for name, curve in with_legal_names(series).items():
            logged = {point.step for point in self._client.get_metric_history(run_id, name)}
            points += [
                Metric(name, float(value), now, step)
                for step, value in curve
                if step not in logged and measured(value)
            ]
        self._client.log_batch(run_id, metrics=points, synchronous=True)

    def register(self, name: str, run_id: str, artifact: str, tags: Mapping[str, object]) -> None:
        """Register a checkpoint of a run as a version of a model, at most once per run.

        Args:
            name: name of the model in the registry.
            run_id: the run that trained it.
            artifact: folder of the checkpoint among the run's artifacts.
            tags: tags of the version, such as the keys of its inputs.
        """
        with suppress(MlflowException):  # it exists
            self._client.create_registered_model(name)
        clause = f"name = '{_quotable(name)}' AND run_id = '{run_id}'"
        if not self._client.search_model_versions(clause, max_results=1):
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{artifact}"
            self._client.create_model_version(name, source, run_id, tags=legal_tags(tags))

    def is_finished(self, run_id: str) -> bool:
        """Whether the status of a run is FINISHED."""
        return bool(self._client.get_run(run_id).info.status == "FINISHED")

    def finish(self, run_id: str, status: Status) -> None:
        """End a run; a resumed sweep continues it unless it is FINISHED."""
        self._client.set_terminated(run_id, status)

    def ui_command(self) -> str:
        """Return the command that starts the UI on this machine, or the server's address."""
        address = urlsplit(self._uri)
        if address.scheme in ("http", "https"):
            return mask_secrets(self._uri)
        command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri"]
        command += [mask_secrets(self._uri), "--host", _UI_HOST, "--port", str(_UI_PORT)]
        return shlex.join(command)

    def _experiment(self, name: str, artifact_root: str | None) -> str:
        experiment: Experiment | None = self._client.get_experiment_by_name(name)
        if experiment is None:
            return str(self._client.create_experiment(name, artifact_location=artifact_root))
        if experiment.lifecycle_stage == "deleted":  # it still occupies the name
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _run_with(
        self, identity: Mapping[str, str], name: str, more_tags: Mapping[str, str] | None = None
    ) -> str:
        run = self._find(identity)
        if run is None:
            # One call creates run and tags, so that a killed job leaves no run without tags.
            tags = legal_tags({**identity, **(more_tags or {})})
            return str(
                self._client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id
            )
        if run.info.status != "FINISHED":
            self._client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def _find(self, identity: Mapping[str, str]) -> Run | None:
        """Return the oldest run with all these tags that was not deleted; None if there is none."""
        clauses = [f"tags.`{tag}` = '{_quotable(value)}'" for tag, value in identity.items()]
        runs = self._client.search_runs(
            [self.experiment_id],
            " AND ".join(clauses),
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return runs[0] if runs else None


@contextmanager
def _single_attempt() -> Iterator[None]:
    """Let MLflow try a request once instead of retrying for minutes."""
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(TIMEOUT_S)),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _quotable(value: str) -> str:
    if "'" in value:
        raise ValueError(
            f"the key {value!r} contains a quote, which MLflow's search cannot escape; valid: a key"
            " without quotes"
        )
    return value


def _milliseconds() -> int:
    return int(time.time() * 1000)
