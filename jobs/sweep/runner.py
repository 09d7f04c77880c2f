"""Runs the steps of a plan in order, skipping what is done, and tells MLflow and the user."""

import json
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.sweep.estimates import Rates, seconds_of
from jobs.sweep.plan import Plan
from jobs.sweep.precision import remember
from jobs.sweep.sweep import Step, Sweep
from orchestrator.checkpoints.weights import Weights
from orchestrator.config.extents import too_long_warmups
from orchestrator.evaluation.metric import metrics_in_order
from orchestrator.stages.progress import Meter
from orchestrator.stages.store import Store
from orchestrator.tracking.mlflow_tracker import Tracker

SMALL_GIB = 0.1  # of disk: what any stage may write, on top of what storage.free_gib must leave
# A checkpoint is written in float32, into the stage's folder and as an artifact in MLflow.
CHECKPOINT_BYTES = 2 * 4
NO_NAME = re.compile(r"[/:'\"%]")  # what no model of MLflow's registry has in its name


class StageFailed(RuntimeError):
    """A stage raised; what was done before it is kept."""


def perform(sweep: Sweep, step: Step, label: str) -> None:
    """Does one step and shows how long it took; MLflow hears nothing of it.

    Raises:
        StageFailed: it raised, or the disk is too full to begin.
    """
    store = sweep.store
    _check_disk(sweep, step)
    started = time.monotonic()
    figures: dict[str, Any] = {}
    try:
        with (
            Meter(sweep.console, label, None, step.unit) as meter,
            store.writing(step.stage, figures) as folder,
        ):
            figures.update(step.run(sweep, step, folder, meter))
    except Exception as error:
        raise StageFailed(f"{step.stage.name}: {type(error).__name__}: {error}") from error
    seconds = time.monotonic() - started
    line = f"{label}: {seconds:.1f} s{_shown(figures)}"
    sweep.console.print(line, highlight=False, markup=False)


def written_gib(sweep: Sweep, step: Step) -> float:
    """GiB of disk that a stage may write: its checkpoint, if it makes one, and small files."""
    if not step.stage.keeps_checkpoint or step.stage.name == "policy":
        return SMALL_GIB  # a policy that the run makes is small
    variant = sweep.config.variants.get(step.options.get("variant", ""))
    from_orm = variant is not None and variant.is_trained_from_orm
    start = Weights.of(sweep.checkpoint("orm" if from_orm else "policy"))
    return SMALL_GIB + start.parameters * CHECKPOINT_BYTES / 2**30


def _check_disk(sweep: Sweep, step: Step) -> None:
    free, kept = sweep.store.free_gib(), sweep.config.storage.free_gib
    written = written_gib(sweep, step)
    if free < kept + written:
        raise StageFailed(
            f"{step.stage.name}: {free:.1f} GiB of disk are free at {sweep.store.local}; the stage"
            f" may write {written:.1f} GiB, and storage.free_gib = {kept:g} must remain; free some"
            " and run again"
        )


class Runner:
    """One pass over a plan.

    Args:
        plan: the steps.
        tracker: MLflow, written to by the driver alone.
        parent: MLflow run id of the sweep.
    """

    def __init__(self, plan: Plan, tracker: Tracker, parent: str) -> None:
        self.plan, self.sweep = plan, plan.sweep
        self._tracker, self._parent = tracker, parent
        self._runs: dict[str, str] = {}
        self.redone: set[str] = set()  # stages that ran in this pass

    def run(self) -> None:
        """Runs what is not done.

        Raises:
            StageFailed: a stage raised; its cause is attached.
        """
        console, store = self.sweep.console, self.sweep.store
        if self.plan.precision is not None:
            remember(store, self.plan.precision)
        for number, step in enumerate(self.plan.steps, 1):
            label = f"[{number}/{len(self.plan.steps)}] {step.stage.name}"
            if store.done(step.stage):
                console.print(f"{label}: done", highlight=False, markup=False)
            else:
                self._run_step(step, label)
            self._track(step)
            if step.stage.name == "data":
                self._check_counted(step)

    def _check_counted(self, step: Step) -> None:
        """Raises StageFailed for a warm-up longer than a training on the rows that there are."""
        counts = self.sweep.store.marker(step.stage)["figures"]["metrics"]
        names = {"policy": "demonstrations", "orm": "pairs_orm", "reference": "pairs_reference"}
        stages = [step.stage.name for step in self.plan.steps]
        rows = {n: counts[count] for n, count in names.items() if count in counts and n in stages}
        if lines := too_long_warmups(self.sweep.config, rows):
            raise StageFailed("; ".join(lines))

    def _run_step(self, step: Step, label: str) -> None:
        store = self.sweep.store
        run_id = self._tracker.stage_run(self._parent, step.stage.name, step.stage.key)
        try:
            perform(self.sweep, step, label)
        except KeyboardInterrupt:
            self._tracker.finish(run_id, "KILLED")
            raise
        except StageFailed:
            self._tracker.finish(run_id, "FAILED")
            raise
        self.redone.add(step.stage.name)
        if step.stage.keeps_checkpoint:
            store.prune(step.stage, self.sweep.config.storage.checkpoints_kept)

    def _track(self, step: Step) -> None:
        """The stage's MLflow run, complete; made now if a kill left it out."""
        run_id = self._tracker.stage_run(self._parent, step.stage.name, step.stage.key)
        self._runs[step.stage.name] = run_id
        if self._tracker.is_finished(run_id) and step.stage.name not in self.redone:
            return
        marker = self.sweep.store.marker(step.stage)
        figures = marker["figures"]
        config = self.sweep.config
        kind = "cell" if step.stage.name.startswith("cells/") else "stage"
        self._tracker.log(
            run_id,
            params={
                **{k: v for k, v in step.stage.config.items() if k != "parameters"},
                **figures.get("parameters", {}),  # a method's, with what was calibrated
                "task": config.data.task_name(), "seed": config.seed,
            },
            metrics={**figures.get("metrics", {}), "stage_seconds": marker["seconds"]},
            tags={"kind": kind, "output": str(self.sweep.store.folder(step.stage))},
            artifacts=_artifacts(self.sweep.store.folder(step.stage)),
        )  # fmt: skip
        self._tracker.log_series(run_id, figures.get("series", {}))
        if step.stage.keeps_checkpoint:
            self._register(step, run_id)
        self._tracker.finish(run_id, "FINISHED")

    def _register(self, step: Step, run_id: str) -> None:
        """The trained model in MLflow's registry, with the keys of the data it was made of."""
        config, stage = self.sweep.config, step.stage
        inputs = {f"input.{read.name}": read.key for read in stage.inputs}
        experiment = config.tracking.experiment or config.data.task_name()
        self._tracker.register(
            NO_NAME.sub(".", f"{experiment}.{stage.name}"),
            run_id,
            "checkpoint",
            {"stage_key": stage.key, "seed": config.seed, **inputs},
        )

    def track_cells(self, cells: list[dict[str, Any]]) -> None:
        """Adds the evaluation's metrics, with their intervals, to the cells' runs."""
        for cell in cells:
            run_id = self._runs[f"cells/{cell['method']}/{cell['scorer'] or 'none'}"]
            metrics: dict[str, float] = {}
            for name, interval in cell["metrics"].items():
                if isinstance(interval, dict):
                    metrics[name] = interval["value"]
                    metrics[f"{name}_low"], metrics[f"{name}_high"] = (
                        interval["low"],
                        interval["high"],
                    )
                elif interval is not None:
                    metrics[name] = interval
            self._tracker.log(run_id, metrics=metrics)


def print_plan(plan: Plan, console: Console, forced: Collection[str] = ()) -> None:
    """The dry run: every stage, its key, whether it is done, and what it may cost.

    Stages that are ``forced`` are done again.
    """
    from rich.table import Table

    done = {
        step.stage.name: step.stage.name not in forced and plan.sweep.store.done(step.stage)
        for step in plan.steps
    }
    rates = None if all(done.values()) else Rates.of(plan.sweep)
    table = Table("stage", "key", "state", "about", title="Plan", title_justify="left")
    left = 0.0
    for step in plan.steps:
        seconds = 0.0
        if rates is not None and not done[step.stage.name]:
            seconds = seconds_of(step, plan.config, rates)
        left += seconds
        state = ("done", "") if done[step.stage.name] else ("to do", f"{seconds:,.0f} s")
        table.add_row(step.stage.name, step.stage.key, *state)
    console.print(table)
    console.print(
        f"{left / 60:,.0f} min to do, estimated from a moment's measurement of this machine;"
        " start-up of Ray and of the training workers included"
    )


def read_evaluation(store: Store, plan: Plan) -> dict[str, Any]:
    """The evaluation's tables."""
    stage = plan.sweep.stages["evaluation"]
    return dict(json.loads((store.folder(stage) / "evaluation.json").read_text()))


def _artifacts(folder: Path) -> list[Path]:
    """Responses, checkpoints and tables; not the training rows, which other stages hold already."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name not in ("_DONE.json", "examples.parquet", "held_out.parquet", "start")
    ]


def _shown(figures: dict[str, Any]) -> str:
    metrics = figures.get("metrics", {})
    right = (name for name, metric in metrics_in_order().items() if metric.tells_right)
    names = ("steps", "final_loss", "held_out_accuracy", "pair_accuracy", *right, "reward")
    parts = [f"{name} {metrics[name]:.4g}" for name in names if name in metrics]
    return "; " + ", ".join(parts) if parts else ""


def sweep_of(config: Any, output_dir: str, console: Console) -> Sweep:
    """A sweep over a store at ``output_dir``."""
    return Sweep(config, Store(output_dir), console)
