"""A step of a plan, and the workspace that the inputs of steps are made from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from rich.console import Console

from jobs.sweep.backends import Engines
from jobs.sweep.runtime.models import Model, Models
from jobs.sweep.runtime.resources import Resources
from jobs.sweep.runtime.stage_files import StageFiles
from jobs.sweep.training import OnMetrics, Trainer, ignore_metrics
from orchestrator.config.tree import Config
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.stages.store import Stage, Store

RAY_TRAIN = "ray_train"  # folder of Ray Train's files, relative to the store's local folder


@dataclass(frozen=True)
class Workspace:
    """The source of the inputs of the step functions; a step function receives only its inputs.

    Attributes:
        config: config of the run.
        files: files of finished stages.
        models: models of the plan.
        resources: processes that steps share.
        console: where progress is shown.
        on_metrics: called with the held-out metrics during a training.
    """

    config: Config
    files: StageFiles
    models: Models
    resources: Resources
    console: Console
    on_metrics: OnMetrics = ignore_metrics

    @classmethod
    def of(
        cls,
        config: Config,
        store: Store,
        stages: dict[str, Stage],
        models: Mapping[str, Model],
        console: Console,
        on_metrics: OnMetrics = ignore_metrics,
        ray_train_folder: str = RAY_TRAIN,
    ) -> Self:
        """Return the workspace of a plan.

        ``ray_train_folder`` is the folder of Ray Train's files, relative to the store's local
        folder.
        """
        files = StageFiles(store, stages)
        resources = Resources(
            config.cluster, config.training.workers, store.local / ray_train_folder
        )
        return cls(config, files, Models(config, files, models), resources, console, on_metrics)

    def engines(self) -> Engines:
        """Return the actor pools with the run's policy and scorers."""
        config = self.config
        return Engines(
            self.resources, self.models.checkpoint("policy"), config.decoding,
            config.scoring.position,
        )  # fmt: skip

    def trainer(self, stage: str) -> Trainer:
        """Return what trains the model of a stage."""
        return Trainer(
            stage, self.files.stages[stage].key, self.config.training, self.config.scoring,
            self.config.seed, self.resources, self.console, self.on_metrics,
        )  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A stage with the work that makes its output.

    Attributes:
        stage: its identity.
        run: makes the step's inputs from the workspace, writes the output into a folder and
            returns the stage's result; ``run`` is not compared.
        unit: what its progress counts.
    """

    stage: Stage
    run: Callable[[Workspace, Path, ProgressBar], StageResult] = field(compare=False)
    unit: str
