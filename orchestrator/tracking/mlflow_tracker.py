"""One experiment a task, a parent run a sweep, a child run a stage or cell, in any MLflow store.

The driver is the one writer: it goes through MlflowClient with explicit run ids, never through the
global "active run", so that an exported MLFLOW_RUN_ID changes nothing. Every call may be made
again after a crash: runs are found by their tags, and what is already logged is not logged twice.
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
from orchestrator.tracking.reachability import ANSWER_S, StoreNotOpened, check_answers

SWEEP_KEY, STAGE, STAGE_KEY = "sweep_key", "stage", "stage_key"
CHANGED_PARAM = "changed_param."  # tag prefix: MLflow keeps a param's first value for ever
CONFIG_FILE = "config.yaml"
_SQLITE = "sqlite:///"
_UI_HOST, _UI_PORT = "127.0.0.1", 5000

Status = Literal["FINISHED", "FAILED", "KILLED"]

# Creating a database prints some 80 lines of migrations that tell a user nothing.
for _name in ("alembic", "mlflow.store.db.utils"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Tracker:
    """Writes the runs of one experiment.

    Args:
        uri: SQLite (`sqlite:////abs/mlflow.db`; folder and database are made), another database, or
            a server's http(s) address. Credentials of a server come from MLflow's own variables.
        experiment: the experiment's name, one a task; made, or restored when it was deleted.
        artifact_root: folder or URI of the artifacts of a new experiment. By default `mlartifacts`
            beside a SQLite file, else what the server decides.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: str | None = None) -> None:
        """Opens the store; makes database and experiment where they are not there (4 s).

        Raises:
            StoreNotOpened: a store that MLflow does not know, or that does not answer.
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
            check_answers(self._uri)
            with _one_try():
                self._client = MlflowClient(tracking_uri=self._uri)
                self.experiment_id = self._experiment(experiment, artifact_root)
        except (MlflowException, OSError, ValueError, ImportError) as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise StoreNotOpened(mask_secrets(first)) from error

    def start_sweep(
        self, sweep_key: str, name: str, params: Mapping[str, object], config_yaml: str
    ) -> str:
        """The parent run of a sweep: found by its key or made; one that was left is RUNNING again.

        Args:
            sweep_key: the identity of the sweep, kept as a tag.
            name: the run's name in the UI.
            params: what the sweep was asked to do; nested mappings become dotted names.
            config_yaml: the resolved config, kept as an artifact with its secrets masked.

        Returns:
            The run id.
        """
        run_id = self._found_or_made({SWEEP_KEY: sweep_key}, name)
        self.log(run_id, params)
        self._client.log_text(run_id, mask_secrets(config_yaml), CONFIG_FILE)
        return run_id

    def stage_run(self, sweep: str, stage: str, key: str) -> str:
        """The child run of a stage or cell: found by parent and key, or made; its id.

        Args:
            sweep: the run id of the parent.
            stage: the run's name in the UI.
            key: the identity of the stage's output.
        """
        return self._found_or_made(
            {MLFLOW_PARENT_RUN_ID: sweep, STAGE_KEY: key}, stage, {STAGE: stage}
        )

    def log(
        self,
        run_id: str,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        tags: Mapping[str, object] | None = None,
        artifacts: Sequence[Path] = (),
    ) -> None:
        """Writes what the run does not hold yet; artifacts (files or folders) are replaced.

        A metric with another value than before becomes the run's latest one. A param keeps its
        first value, as MLflow wants; the new one goes into the tag `changed_param.NAME`. Metrics
        that are None, NaN or infinite are left out.

        Raises:
            ValueError: two names become the same one under MLflow's rules.
        """
        held = self._client.get_run(run_id).data
        wanted = flat_params(params or {})
        new_tags = legal_tags(tags or {})
        new_tags |= {
            CHANGED_PARAM + name: value
            for name, value in wanted.items()
            if held.params.get(name, value) != value
        }
        now = _milliseconds()
        self._client.log_batch(  # cuts into as many calls as MLflow's limits ask for
            run_id,
            metrics=[
                Metric(name, value, now, 0)
                for name, value in finite_metrics(metrics or {}).items()
                if held.metrics.get(name) != value
            ],
            params=[
                Param(name, value) for name, value in wanted.items() if name not in held.params
            ],
            tags=[RunTag(name, value) for name, value in new_tags.items()],
            synchronous=True,
        )
        for artifact in artifacts:
            self._client.log_artifact(run_id, str(artifact))

    def log_series(
        self, run_id: str, series: Mapping[str, Sequence[tuple[int, float | None]]]
    ) -> None:
        """Writes curves, name -> (step, value) pairs; steps that the run already holds are skipped.

        Raises:
            ValueError: two names become the same one under MLflow's rules.
        """
        now = _milliseconds()
        points: list[Metric] = []
        for name, curve in with_legal_names(series).items():
            held = {point.step for point in self._client.get_metric_history(run_id, name)}
            points += [
                Metric(name, float(value), now, step)
                for step, value in curve
                if step not in held and measured(value)
            ]
        self._client.log_batch(run_id, metrics=points, synchronous=True)

    def register(self, name: str, run_id: str, artifact: str, tags: Mapping[str, object]) -> None:
        """Makes a run's artifact, a checkpoint, a version of a registered model, once a run.

        Args:
            name: the model's name in the registry.
            run_id: the run that trained it; its params and metrics are the version's.
            artifact: the folder's name among the run's artifacts.
            tags: what it was made of.
        """
        with suppress(MlflowException):  # it is there already
            self._client.create_registered_model(name)
        clause = f"name = '{_quotable(name)}' AND run_id = '{run_id}'"
        if not self._client.search_model_versions(clause, max_results=1):
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{artifact}"
            self._client.create_model_version(name, source, run_id, tags=legal_tags(tags))

    def is_finished(self, run_id: str) -> bool:
        """Whether the run was ended as FINISHED."""
        return bool(self._client.get_run(run_id).info.status == "FINISHED")

    def finish(self, run_id: str, status: Status) -> None:
        """Ends a run; a resumed sweep opens it again unless it is FINISHED."""
        self._client.set_terminated(run_id, status)

    def ui_command(self) -> str:
        """The command that opens the UI on the loopback, or the address of the server."""
        address = urlsplit(self._uri)
        if address.scheme in ("http", "https"):
            return mask_secrets(self._uri)
        command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri"]
        command += [mask_secrets(self._uri), "--host", _UI_HOST, "--port", str(_UI_PORT)]
        return shlex.join(command)

    def _experiment(self, name: str, artifact_root: str | None) -> str:
        found: Experiment | None = self._client.get_experiment_by_name(name)
        if found is None:
            return str(self._client.create_experiment(name, artifact_location=artifact_root))
        if found.lifecycle_stage == "deleted":  # its name is still taken
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _found_or_made(
        self, identity: Mapping[str, str], name: str, more_tags: Mapping[str, str] | None = None
    ) -> str:
        found = self._find(identity)
        if found is None:
            # One call makes run and tags: no kill leaves a run that cannot be found again.
            tags = legal_tags({**identity, **(more_tags or {})})
            return str(
                self._client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id
            )
        if found.info.status != "FINISHED":
            self._client.update_run(found.info.run_id, status="RUNNING")
        return str(found.info.run_id)

    def _find(self, identity: Mapping[str, str]) -> Run | None:
        """The oldest run that has all these tags and was not deleted in the UI."""
        clauses = [f"tags.`{tag}` = '{_quotable(value)}'" for tag, value in identity.items()]
        found = self._client.search_runs(
            [self.experiment_id],
            " AND ".join(clauses),
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return found[0] if found else None


@contextmanager
def _one_try() -> Iterator[None]:
    """While a store is opened, a server that fails is not asked again for minutes."""
    wanted = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(ANSWER_S)),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _quotable(value: str) -> str:
    if "'" in value:
        raise ValueError(f"the key {value!r} holds a quote; MLflow's search cannot look for it")
    return value


def _milliseconds() -> int:
    return int(time.time() * 1000)
