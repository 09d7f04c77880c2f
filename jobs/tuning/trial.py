"""The function that Ray Tune runs for a trial: it runs the trial's stages and reports metrics.

A trial writes its stages to the store, as other jobs do. The driver writes its metrics to MLflow.
When Ray Tune stops a trial, its process ends, and Ray ends the actors that it started.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from ray import tune
from rich.console import Console

from jobs.sweep.runner import StageFailed, perform
from jobs.sweep.runtime.models import Model
from jobs.sweep.runtime.workspace import Step, Workspace
from orchestrator.config.tree import Config
from orchestrator.stages.store import Stage, Store
from orchestrator.tuning.outcomes import Outcome

FINISHED, PERCENT, STEP = "finished", "percent", "training_step"
FULL_PERCENT = 100.0  # percent of the steps of a finished training
LOCKS = "locks"  # folder in the store's folder while trials run


@dataclass(frozen=True)
class TrialJob:
    """What a trial needs, planned by the driver.

    Attributes:
        number: number of the trial, from 1.
        config: config of the trial.
        store_root: root folder of the store.
        working_dir: working directory of the driver, to which paths in the config are relative.
        stages: all stages of the plan, by name.
        models: all models of the plan, by name.
        steps: steps of the trial that are not common to all trials (some trials may still have a
            step in common); the last one trains the model.
        metric: metric by which trials are compared.
        outcome: outcome of an earlier run, which is reported again instead of training.
    """

    number: int
    config: Config
    store_root: str
    working_dir: str
    stages: dict[str, Stage]
    models: dict[str, Model]
    steps: tuple[Step, ...]
    metric: str
    outcome: Outcome | None = None

    @property
    def stage(self) -> Stage:
        """The stage that trains the model."""
        return self.steps[-1].stage


def run_trial(tune_config: dict[str, object], jobs: Sequence[TrialJob]) -> None:
    """Run the trial of number ``tune_config["number"]``; Ray Tune calls this function.

    Raises:
        StageFailed: a stage raised an error, or the metric was not measured.
    """
    job = next(job for job in jobs if job.number == tune_config["number"])
    if job.outcome is not None:
        return _report_outcome(job.outcome, job.metric)
    if Path(job.working_dir).is_dir():
        os.chdir(job.working_dir)

    def on_metrics(stage: str, share: float, step: int, values: Mapping[str, float]) -> None:
        # Metrics at 100 % are reported at the end, after the model is written, because Tune stops
        # the trial at 100 %.
        if stage == job.stage.name and share < 1 and job.metric in values:
            tune.report({**values, PERCENT: FULL_PERCENT * share, STEP: step})

    store = Store(job.store_root, exclusive=False)
    workspace = Workspace.of(
        job.config, store, job.stages, job.models, Console(quiet=True), on_metrics,
        ray_train_folder=ray_train_folder(job.stage),
    )  # fmt: skip
    for step in job.steps:
        _run_once(workspace, step)
    metrics = store.marker(job.stage)["figures"]["metrics"]
    if job.metric not in metrics:
        raise StageFailed(f"{job.stage.name}: no held-out pairs to measure {job.metric} on")
    workspace.resources.close()
    shutil.rmtree(workspace.resources.storage, ignore_errors=True)
    tune.report({**metrics, PERCENT: FULL_PERCENT, STEP: metrics["steps"], FINISHED: True})


def ray_train_folder(stage: Stage) -> str:
    """Return the folder of Ray Train's files of a trial, relative to the store's folder."""
    return f"ray_train/trials/{stage.key}"


def _run_once(workspace: Workspace, step: Step) -> None:
    """Run a step unless it is done; if several trials have it, one runs it and the others wait."""
    store = workspace.files.store
    locks = store.local / LOCKS
    locks.mkdir(exist_ok=True)
    with FileLock(locks / step.stage.key):
        if not store.done(step.stage):
            perform(workspace, step, step.stage.name)


def _report_outcome(outcome: Outcome, metric: str) -> None:
    """Report an earlier outcome to Ray Tune, whose scheduler compares other trials with it."""
    for evaluation in outcome.evaluations:
        if metric in evaluation.measures:
            tune.report(
                {
                    **evaluation.measures,
                    PERCENT: FULL_PERCENT * evaluation.share,
                    STEP: evaluation.step,
                }
            )
    if outcome.state == "finished":
        steps = outcome.metrics["steps"]
        tune.report({**outcome.metrics, PERCENT: FULL_PERCENT, STEP: steps, FINISHED: True})
