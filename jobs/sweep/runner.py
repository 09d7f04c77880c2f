"""Runs the steps of a plan in order, skips finished stages, and logs to MLflow and the console."""

import json
import re
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.sweep.estimates import Rates, seconds_of
from jobs.sweep.plan import Plan
from jobs.sweep.precision import remember
from jobs.sweep.runtime.workspace import Step, Workspace
from jobs.sweep.stage_names import CellName
from orchestrator.checkpoints.weights import Weights
from orchestrator.config.counts import too_long_warmups
from orchestrator.evaluation.metric import metrics_in_order
from orchestrator.report.entries import CellEntry, Evaluation
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.tracking.mlflow_tracker import RunRef, Tracker

SMALL_GIB = 0.1  # disk space for any stage, in addition to storage.free_gib
# A checkpoint is written in float32, into the stage's folder and as an artifact in MLflow.
CHECKPOINT_BYTES = 2 * 4
NO_NAME = re.compile(r"[/:'\"%]")  # characters that names in MLflow's model registry may not have
NO_ARTIFACTS = ("_DONE.json", "examples.parquet", "held_out.parquet", "start")


class StageFailed(RuntimeError):
    """A stage raised; finished stages are kept."""


def perform(workspace: Workspace, step: Step, label: str) -> None:
    """Run one step and show how long it took, without MLflow.

    Raises:
        StageFailed: the step raised, or there is too little free disk to begin.
    """
    _check_disk(workspace, step)
    started = time.monotonic()
    result: StageResult = {}
    try:
        with (
            ProgressBar(workspace.console, label, None, step.unit) as progress,
            workspace.files.store.writing(step.stage, result) as folder,
        ):
            result.update(step.run(workspace, folder, progress))
    except Exception as error:
        raise StageFailed(f"{step.stage.name}: {type(error).__name__}: {error}") from error
    seconds = time.monotonic() - started
    line = f"{label}: {seconds:.1f} s{_shown(result)}"
    workspace.console.print(line, highlight=False)


def written_gib(workspace: Workspace, step: Step) -> float:
    """Return the GiB of disk that a stage may write: its checkpoint, if any, and small files."""
    stage = step.stage
    if not stage.keeps_checkpoint or stage.name == "policy":
        return SMALL_GIB  # a policy that the run makes is small
    variant = workspace.config.variants.get(stage.name.removeprefix("variants/"))
    from_orm = variant is not None and variant.is_trained_from_orm
    start = Weights.of(workspace.models.checkpoint("orm" if from_orm else "policy"))
    return SMALL_GIB + start.parameters * CHECKPOINT_BYTES / 2**30


def _check_disk(workspace: Workspace, step: Step) -> None:
    store, kept = workspace.files.store, workspace.config.storage.free_gib
    free, written = store.free_gib(), written_gib(workspace, step)
    if free < kept + written:
        raise StageFailed(
            f"{step.stage.name}: {free:.1f} GiB of disk are free at {store.local}; the stage"
            f" may write {written:.1f} GiB, and storage.free_gib = {kept:g} must remain; free some"
            " and run again"
        )


class Runner:
    """One pass over a plan.

    Args:
        plan: the steps.
        workspace: workspace of the plan.
        tracker: MLflow, to which only the driver writes.
        parent: MLflow run of the sweep.

    Attributes:
        redone: names of the stages that ran in this pass.
    """

    def __init__(self, plan: Plan, workspace: Workspace, tracker: Tracker, parent: RunRef) -> None:
        self._plan, self._workspace = plan, workspace
        self._tracker, self._parent = tracker, parent
        self._runs: dict[str, RunRef] = {}
        self.redone: set[str] = set()

    def run(self) -> None:
        """Run the stages that are not finished.

        Raises:
            StageFailed: a stage raised; its cause is attached.
        """
        console, store, steps = self._workspace.console, self._plan.store, self._plan.steps
        if self._plan.precision is not None:
            remember(store, self._plan.precision)
        for number, step in enumerate(steps, 1):
            label = f"[{number}/{len(steps)}] {step.stage.name}"
            if store.done(step.stage):
                console.print(f"{label}: done", highlight=False)
            else:
                self._run_step(step, label)
            self._track(step)
            if step.stage.name == "data":
                self._check_warmups(step)

    def _check_warmups(self, step: Step) -> None:
        """Raise StageFailed if a warm-up is longer than its training on the rows of the data."""
        counts = self._plan.store.marker(step.stage)["figures"]["metrics"]
        names = {"policy": "demonstrations", "orm": "pairs_orm", "reference": "pairs_reference"}
        stages = [step.stage.name for step in self._plan.steps]
        rows = {
            name: int(counts[count])
            for name, count in names.items()
            if count in counts and name in stages
        }
        if lines := too_long_warmups(self._plan.config, rows):
            raise StageFailed("; ".join(lines))

    def _run_step(self, step: Step, label: str) -> None:
        run = self._tracker.stage_run(self._parent, step.stage.name, step.stage.key)
        try:
            perform(self._workspace, step, label)
        except KeyboardInterrupt:
            self._tracker.finish(run, "KILLED")
            raise
        except StageFailed:
            self._tracker.finish(run, "FAILED")
            raise
        self.redone.add(step.stage.name)
        if step.stage.keeps_checkpoint:
            self._plan.store.prune(step.stage, self._plan.config.storage.checkpoints_kept)

    def _track(self, step: Step) -> None:
        """Complete the stage's MLflow run, which a killed job may have left incomplete."""
        run = self._tracker.stage_run(self._parent, step.stage.name, step.stage.key)
        self._runs[step.stage.name] = run
        if self._tracker.is_finished(run) and step.stage.name not in self.redone:
            return
        marker, folder = self._plan.store.marker(step.stage), self._plan.store.folder(step.stage)
        result, config = marker["figures"], self._plan.config
        kind = "cell" if step.stage.name.startswith("cells/") else "stage"
        self._tracker.log(
            run,
            params={
                **{k: v for k, v in step.stage.config.items() if k != "parameters"},
                **result.get("parameters", {}),  # a method's, with calibrated values
                "task": config.data.task_name(), "seed": config.seed,
            },
            metrics={**result.get("metrics", {}), "stage_seconds": marker["seconds"]},
            tags={"kind": kind, "output": str(folder)},
            artifacts=_artifacts(folder),
        )  # fmt: skip
        self._tracker.log_series(run, result.get("series", {}))
        if step.stage.keeps_checkpoint:
            self._register(step, run)
        self._tracker.finish(run, "FINISHED")

    def _register(self, step: Step, run: RunRef) -> None:
        """Add the trained model to MLflow's registry, with the keys of the stages that it read."""
        config, stage = self._plan.config, step.stage
        inputs = {f"input.{read.name}": read.key for read in stage.inputs}
        experiment = config.tracking.experiment or config.data.task_name()
        self._tracker.register(
            NO_NAME.sub(".", f"{experiment}.{stage.name}"),
            run,
            "checkpoint",
            {"stage_key": stage.key, "seed": config.seed, **inputs},
        )

    def track_cells(self, cells: Sequence[CellEntry]) -> None:
        """Add the evaluation's metrics, with their intervals, to the cells' runs."""
        for cell in cells:
            run = self._runs[CellName(cell["method"], cell["scorer"]).stage]
            metrics: dict[str, float] = {}
            for name, interval in cell["metrics"].items():
                if interval is None:
                    continue
                if isinstance(interval, int | float):
                    metrics[name] = interval
                    continue
                metrics[name] = interval["value"]
                metrics[f"{name}_low"] = interval["low"]
                metrics[f"{name}_high"] = interval["high"]
            self._tracker.log(run, metrics=metrics)


def print_plan(plan: Plan, console: Console, forced: Collection[str] = ()) -> None:
    """Show the dry run: every stage, its key, whether it is done, and its estimated seconds.

    Stages that are ``forced`` are shown as to do.
    """
    done = {
        step.stage.name: step.stage.name not in forced and plan.store.done(step.stage)
        for step in plan.steps
    }
    rates = None if all(done.values()) else Rates.of(plan.config)
    table = Table("stage", "key", "state", "about", title="Plan", title_justify="left")
    left = 0.0
    for step in plan.steps:
        seconds = 0.0
        if rates is not None and not done[step.stage.name]:
            seconds = seconds_of(step.stage.name, plan.config, rates)
        left += seconds
        state = ("done", "") if done[step.stage.name] else ("to do", f"{seconds:,.0f} s")
        table.add_row(step.stage.name, step.stage.key, *state)
    console.print(table)
    console.print(
        f"{left / 60:,.0f} min to do, estimated from a short benchmark of this machine;"
        " includes the start of Ray and of the training workers"
    )


def read_evaluation(plan: Plan) -> Evaluation:
    """Return the results of the evaluation."""
    folder = plan.store.folder(plan.stages["evaluation"])
    evaluation: Evaluation = json.loads((folder / "evaluation.json").read_text())
    return evaluation


def _artifacts(folder: Path) -> list[Path]:
    """Return the files to log: all but the training rows, which are in other stages."""
    return [path for path in sorted(folder.iterdir()) if path.name not in NO_ARTIFACTS]


def _shown(result: StageResult) -> str:
    metrics = result.get("metrics", {})
    right = (name for name, metric in metrics_in_order().items() if metric.measures_correctness)
    names = ("steps", "final_loss", "held_out_accuracy", "pair_accuracy", *right, "reward")
    parts = [f"{name} {metrics[name]:.4g}" for name in names if name in metrics]
    return "; " + ", ".join(parts) if parts else ""
