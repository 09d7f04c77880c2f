"""One trial as Ray Tune runs it: the stages of its own in an actor, measures as they come.

It writes stages as every job does, and tells Tune of its measures; MLflow hears of them from the
driver. When Tune stops it, its process ends, and Ray ends what it had started with it.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from ray import tune
from rich.console import Console

from jobs.sweep.runner import StageFailed, perform
from jobs.sweep.sweep import Model, Step, Sweep
from orchestrator.config.tree import Config
from orchestrator.stages.store import Stage, Store
from orchestrator.tuning.outcomes import Outcome

FINISHED, PERCENT, STEP = "finished", "percent", "training_step"
WHOLE = 100.0  # percent
LOCKS = "locks"  # folder under the store's, while trials run


@dataclass(frozen=True)
class TrialJob:
    """All that a trial needs, as the driver has planned it.

    Attributes:
        number: of the trial, from 1.
        config: what it trains with.
        root: of the store.
        folder: the driver's working directory, which relative paths of the config count from.
        stages: all of the plan, by name.
        models: all of the plan, by name.
        steps: those of its own; the last one trains the model.
        metric: what trials are compared by.
        outcome: what an earlier run left; it is told again instead of training.
    """

    number: int
    config: Config
    root: str
    folder: str
    stages: dict[str, Stage]
    models: dict[str, Model]
    steps: tuple[Step, ...]
    metric: str
    outcome: Outcome | None = None

    @property
    def stage(self) -> Stage:
        """The stage that trains the model."""
        return self.steps[-1].stage


def run_trial(chosen: dict[str, Any], jobs: Sequence[TrialJob]) -> None:
    """Ray Tune's function: does the trial that ``chosen["number"]`` names.

    Raises:
        StageFailed: a stage raised.
    """
    job = next(job for job in jobs if job.number == chosen["number"])
    if job.outcome is not None:
        return _tell_again(job.outcome, job.metric)
    if Path(job.folder).is_dir():
        os.chdir(job.folder)

    def measured(stage: str, share: float, step: int, measures: Mapping[str, float]) -> None:
        # The last ones are told with the model written: Tune ends a trial that has done all.
        if stage == job.stage.name and share < 1 and job.metric in measures:
            tune.report({**measures, PERCENT: WHOLE * share, STEP: step})

    store = Store(job.root, alone=False)
    sweep = Sweep(
        job.config, store, Console(quiet=True), job.stages, job.models, measured,
        trainings=trainings_of(job.stage),
    )  # fmt: skip
    for step in job.steps:
        _do_once(sweep, step)
    metrics = store.marker(job.stage)["figures"]["metrics"]
    if job.metric not in metrics:
        raise StageFailed(f"{job.stage.name}: there were no held-out pairs to measure {job.metric}")
    sweep.close()
    shutil.rmtree(store.local / sweep.trainings, ignore_errors=True)
    tune.report({**metrics, PERCENT: WHOLE, STEP: metrics["steps"], FINISHED: True})


def trainings_of(stage: Stage) -> str:
    """The folder of Ray Train's files of a trial, under the store's: each has its own group."""
    return f"ray_train/trials/{stage.key}"


def _do_once(sweep: Sweep, step: Step) -> None:
    """Does a step unless it is done; of trials that share it one does it, and the others wait."""
    locks = sweep.store.local / LOCKS
    locks.mkdir(exist_ok=True)
    with FileLock(locks / step.stage.key):
        if not sweep.store.done(step.stage):
            perform(sweep, step, step.stage.name)


def _tell_again(outcome: Outcome, metric: str) -> None:
    """What is known of a trial, to Tune, whose scheduler compares others with it."""
    for point in outcome.points:
        if metric in point.measures:
            tune.report({**point.measures, PERCENT: WHOLE * point.share, STEP: point.step})
    if outcome.state == "finished":
        steps = outcome.metrics["steps"]
        tune.report({**outcome.metrics, PERCENT: WHOLE, STEP: steps, FINISHED: True})
