"""Write a sweep to MLflow: an experiment per task, a parent run per sweep, a child run per stage.

Only the driver writes. It uses MlflowClient with explicit run ids and not the global "active run",
so that an exported MLFLOW_RUN_ID has no effect. Every call can be repeated after a crash: runs are
identified by their tags, and values that are already logged are not logged again. A store that is
away for a while does not end the job: writes wait in an `Outbox`.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlflow.entities import Metric, Param, Run, RunTag
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
from orchestrator.tracking.location import ui_command
from orchestrator.tracking.mlflow_store import is_temporary, open_store
from orchestrator.tracking.outbox import Outbox

SWEEP_KEY, STAGE, STAGE_KEY = "sweep_key", "stage", "stage_key"
OUTPUT, OUTPUT_KEY = "output", "output_key"  # tags: the output folder, and its hash
CHANGED_PARAM = "changed_param."  # prefix of tags: MLflow does not let a param change
CONFIG_FILE = "config.yaml"
MANY = 1_000  # open runs of an experiment

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class RunRef:
    """A run, by the tags that identify it; it exists in the store once it is written.

    Attributes:
        name: the run's name in the UI.
        identity: (tag, value) pairs that no other run of its parent has.
        tags: more (tag, value) pairs of a new run.
        parent: the parent run.
    """

    name: str
    identity: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, str], ...] = ()
    parent: "RunRef | None" = None


class Tracker:
    """Writes the runs of one experiment.

    Args:
        uri: SQLite (`sqlite:////abs/mlflow.db`; folder and database are created), another database,
            or the http(s) address of a server, whose credentials are in MLflow's variables.
        experiment: name of the experiment; created, or restored if it was deleted.
        artifact_root: folder or URI of the artifacts of a new experiment; None: `mlartifacts`
            beside a SQLite file, otherwise the server's default.
        report: called with a sentence when the store stops to answer, and when it answers again.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        artifact_root: str | None = None,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """Open the store; create database and experiment if they do not exist (4 s).

        Raises:
            StoreUnavailable: MLflow does not support the store, or it does not answer.
        """
        self._report = report
        self._store = open_store(uri, experiment, artifact_root)
        self._client, self.experiment_id = self._store.client, self._store.experiment_id
        self._outbox = Outbox(is_temporary, report)
        self._ids: dict[RunRef, str] = {}

    def start_sweep(
        self,
        sweep_key: str,
        name: str,
        params: Mapping[str, object],
        config_yaml: str,
        output: str = "",
    ) -> RunRef:
        """Return the parent run of a sweep; an existing one continues, unless FINISHED.

        Runs that a killed job left open in the same output folder are closed as KILLED.

        Args:
            sweep_key: the identity of the sweep, kept as a tag.
            name: the run's name in the UI.
            params: the settings of the sweep; nested mappings become dotted names.
            config_yaml: the resolved config, logged as an artifact with masked secrets.
            output: the output folder, to which no other job writes now.
        """
        self._outbox.send(lambda: self._close_abandoned(output))
        identity: tuple[tuple[str, str], ...] = ((SWEEP_KEY, sweep_key),)
        if output:  # the same sweep in another folder, maybe at the same time, is another run
            identity += ((OUTPUT_KEY, hashlib.sha256(output.encode()).hexdigest()[:16]),)
        run = self._opened(RunRef(name, identity, ((OUTPUT, output),)))
        self.log(run, params, tags={OUTPUT: output})
        text = mask_secrets(config_yaml)
        self._outbox.send(lambda: self._client.log_text(self.run_id(run), text, CONFIG_FILE))
        return run

    def stage_run(self, sweep: RunRef, stage: str, key: str) -> RunRef:
        """Return the child run of a stage or cell; created if it does not exist.

        Args:
            sweep: the parent.
            stage: the run's name in the UI.
            key: the identity of the stage's output.
        """
        return self._opened(RunRef(stage, ((STAGE_KEY, key),), ((STAGE, stage),), sweep))

    def log(
        self,
        run: RunRef,
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
        new_params, new_tags = flat_params(params or {}), legal_tags(tags or {})
        new_metrics, now = finite_metrics(metrics or {}), _milliseconds()

        def write() -> None:
            run_id = self.run_id(run)
            logged = self._client.get_run(run_id).data
            changed = {
                CHANGED_PARAM + name: value
                for name, value in new_params.items()
                if logged.params.get(name, value) != value
            }
            self._client.log_batch(  # splits into several calls at MLflow's limits
                run_id,
                metrics=[
                    Metric(name, value, now, 0)
                    for name, value in new_metrics.items()
                    if logged.metrics.get(name) != value
                ],
                params=[
                    Param(name, value)
                    for name, value in new_params.items()
                    if name not in logged.params
                ],
                tags=[RunTag(name, value) for name, value in (new_tags | changed).items()],
                synchronous=True,
            )
            for artifact in artifacts:
                self._client.log_artifact(run_id, str(artifact))

        self._outbox.send(write)

    def log_series(
        self, run: RunRef, series: Mapping[str, Sequence[tuple[int, float | None]]]
    ) -> None:
        """Log curves, name -> (step, value) pairs; steps that the run has are skipped.

        Raises:
            ValueError: two names become the same legal name.
        """
        curves, now = with_legal_names(series), _milliseconds()

        def write() -> None:
            run_id = self.run_id(run)
            points: list[Metric] = []
            for name, curve in curves.items():
                logged = {point.step for point in self._client.get_metric_history(run_id, name)}
                points += [
                    Metric(name, float(value), now, step)
                    for step, value in curve
                    if step not in logged and measured(value)
                ]
            self._client.log_batch(run_id, metrics=points, synchronous=True)

        self._outbox.send(write)

    def register(self, name: str, run: RunRef, artifact: str, tags: Mapping[str, object]) -> None:
        """Register a checkpoint of a run as a version of a model, at most once per run.

        Args:
            name: name of the model in the registry.
            run: the run that trained it.
            artifact: folder of the checkpoint among the run's artifacts.
            tags: tags of the version, such as the keys of its inputs.
        """
        self._outbox.send(lambda: self._register(name, self.run_id(run), artifact, tags))

    def is_finished(self, run: RunRef) -> bool:
        """Whether the status of a run is FINISHED; False while the store is away."""
        if self._outbox.is_delayed:
            return False
        try:
            return bool(self._client.get_run(self.run_id(run)).info.status == "FINISHED")
        except Exception as error:
            if not is_temporary(error):
                raise
            return False

    def finish(self, run: RunRef, status: Status) -> None:
        """End a run; a resumed sweep continues it unless it is FINISHED."""
        ended = _milliseconds()
        self._outbox.send(lambda: self._client.set_terminated(self.run_id(run), status, ended))

    def flush(self, seconds: float) -> None:
        """Send what waits for the store; what stays unsent is sent when the same job runs again."""
        if unsent := self._outbox.flush(seconds):
            self._report(f"{unsent} writes are not sent; the same command sends them again")

    def run_id(self, run: RunRef) -> str:
        """Return the id of a run in the store; the run is created if it does not exist."""
        if run not in self._ids:
            identity = dict(run.identity)
            if run.parent is not None:
                identity[MLFLOW_PARENT_RUN_ID] = self.run_id(run.parent)
            entity = self._find(identity)
            if entity is None:
                # One call creates run and tags, so that a killed job leaves no run without tags.
                tags = legal_tags({**identity, **dict(run.tags)})
                entity = self._client.create_run(self.experiment_id, tags=tags, run_name=run.name)
            elif entity.info.status != "FINISHED":
                self._client.update_run(entity.info.run_id, status="RUNNING")
            self._ids[run] = str(entity.info.run_id)
        return self._ids[run]

    def _opened(self, run: RunRef) -> RunRef:
        self._ids.pop(run, None)  # a run that the user deleted is created again
        self._outbox.send(lambda: self.run_id(run))
        return run

    def _close_abandoned(self, output: str) -> None:
        """Close the runs that a killed job left open: parents of an output, and their children."""
        query = "attributes.status = 'RUNNING'"
        running = self._client.search_runs([self.experiment_id], query, max_results=MANY)
        parents = {r.info.run_id for r in running if r.data.tags.get(OUTPUT) == output}
        for run in running:
            if {run.info.run_id, run.data.tags.get(MLFLOW_PARENT_RUN_ID)} & parents:
                self._client.set_tag(run.info.run_id, "end", "the job was killed")
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _register(self, name: str, run_id: str, artifact: str, tags: Mapping[str, object]) -> None:
        with suppress(MlflowException):  # it exists
            self._client.create_registered_model(name)
        clause = f"name = '{_quotable(name)}' AND run_id = '{run_id}'"
        if not self._client.search_model_versions(clause, max_results=1):
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{artifact}"
            self._client.create_model_version(name, source, run_id, tags=legal_tags(tags))

    def ui_command(self) -> str:
        """Return the command that starts the UI on this machine, or the server's address."""
        return ui_command(self._store.uri)

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


def _quotable(value: str) -> str:
    if "'" in value:
        raise ValueError(
            f"the key {value!r} contains a quote, which MLflow's search cannot escape; valid: a key"
            " without quotes"
        )
    return value


def _milliseconds() -> int:
    return int(time.time() * 1000)
