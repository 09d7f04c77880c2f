"""What all trainings share: the job of a config section, progress, curves for MLflow."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from actors.training import JobState
from jobs.sweep.runtime.resources import Resources
from orchestrator.config.decoding import ScoringConfig
from orchestrator.config.load import ROOT
from orchestrator.config.sections import Reading
from orchestrator.config.training import Optimization, TrainingConfig
from orchestrator.config.tree import Config
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import Series, StageResult
from orchestrator.training.job import Precision, Start, TrainingJob

CURVE_POINTS = 100  # maximum number of points of a curve in MLflow and the report
# Called with a stage's name, the share of its steps that are done, the step, and the held-out
# measures after it.
OnMetrics = Callable[[str, float, int, Mapping[str, float]], None]


def ignore_metrics(stage: str, share: float, step: int, metrics: Mapping[str, float]) -> None:
    """Do nothing with the held-out metrics during a training."""


@dataclass(frozen=True)
class Trainer:
    """Trains the model of one stage on the warm training group.

    Attributes:
        stage: name of the stage.
        key: key of the stage; a training that was interrupted is resumed under it.
        training: how models are trained.
        scoring: where and how prefixes are scored.
        seed: seed of the run.
        resources: hold the training group.
        console: where a resumption is reported.
        on_metrics: called with the held-out metrics during the training.
    """

    stage: str
    key: str
    training: TrainingConfig
    scoring: ScoringConfig
    seed: int
    resources: Resources
    console: Console
    on_metrics: OnMetrics = ignore_metrics

    def train(
        self,
        objective: str,
        start: Start,
        checkpoint: str,
        optimization: Optimization,
        folder: Path,
        progress: ProgressBar,
        steps: int | None = None,
        examples: Path | None = None,
        held_out: Path | None = None,
        beta: float = 1.0,
        reading: Reading = Reading(),  # noqa: B008 - frozen
    ) -> StageResult:
        """Train into ``folder``/checkpoint.

        The rows are those of ``examples``, by default ``folder``/examples.parquet. It is evaluated
        on ``held_out``, by default on ``folder``/held_out.parquet if that exists.

        Raises:
            RuntimeError: a loss is not finite, or the training group failed.
        """
        training = self.training
        if held_out is None and (folder / "held_out.parquet").is_file():
            held_out = folder / "held_out.parquet"
        job = TrainingJob(
            key=self.key,
            objective=objective,
            start=start,
            checkpoint=checkpoint,
            examples=str(examples or folder / "examples.parquet"),
            output=str(folder / "checkpoint"),
            learning_rate=optimization.learning_rate,
            batch_size=optimization.batch_size,
            epochs=optimization.epochs,
            steps=steps or optimization.max_steps,
            warmup_steps=optimization.warmup_steps,
            closed=self.scoring.position == "closed",
            seed=self.seed,
            deepspeed=_deepspeed(training),
            precision=precision_of(training),
            micro_batch_tokens=training.micro_batch_tokens,
            gradient_checkpointing=training.gradient_checkpointing,
            checkpoint_steps=training.checkpoint_steps,
            evaluation=str(held_out) if held_out else None,
            evaluation_steps=training.evaluation_steps,
            beta=beta,
            branch_memory_mib=self.scoring.branch_memory_mib,
            score_label=reading.score_label,
            score_at=reading.score_at,
        )
        result = self.resources.trainer().train(job, self._progress(progress))
        if result["resumed_at"]:
            self.console.print(
                f"{self.stage}: resumed after step {result['resumed_at']}", highlight=False
            )
        return _stage_result(result)

    def _progress(self, progress: ProgressBar) -> Callable[[JobState], None]:
        """Show the progress of a training, and report each measurement once."""
        passed_on: set[int] = set()

        def show(state: JobState) -> None:
            if not state.steps:
                return
            progress.update(state.done_steps, state.steps, note=_note(state))
            for number in sorted(set(state.metrics) - passed_on):
                passed_on.add(number)
                share = number / state.steps
                self.on_metrics(self.stage, share, number, state.metrics[number])

        return show


def _stage_result(result: Mapping[str, Any]) -> StageResult:
    """Return metrics and curves of a training; the final loss is the mean of the last tenth."""
    last = result["loss"][-max(len(result["loss"]) // 10, 1) :]
    return {
        "metrics": {
            "steps": result["steps"],
            "rows": result["rows"],
            "partial_pairs": result["partial_pairs"],
            "train_seconds": result["seconds"],
            "final_loss": sum(last) / len(last),
            **{name: curve[-1][1] for name, curve in result["evaluation"].items()},
        },
        "series": {
            "loss": _curve(result["loss"]),
            "train_accuracy": _curve(result["accuracy"]),
            **result["evaluation"],
        },
    }


def _note(state: JobState) -> str:
    """Return the last loss, and the last held-out accuracy if there is one."""
    last = state.metrics[max(state.metrics)] if state.metrics else {}
    accuracy = last.get("held_out_accuracy")
    return f"loss {state.loss:.3f}" + (
        "" if accuracy is None else f", held-out accuracy {accuracy:.3f}"
    )


def precision_of(training: TrainingConfig) -> Precision:
    """Return the precision that models are trained in.

    Raises:
        ValueError: it is `auto`, which a plan replaces by a precision.
    """
    if training.precision == "auto":
        raise ValueError(
            "training.precision = 'auto': the plan must replace auto by a precision first"
        )
    return training.precision


def _deepspeed(training: TrainingConfig) -> dict[str, object]:
    """Return the settings of DeepSpeed's file with the ZeRO stage of the config."""
    content: dict[str, Any] = json.loads(_project_file(training.deepspeed).read_text())
    zero = {**content.get("zero_optimization", {}), "stage": training.zero_stage}
    return {**content, "zero_optimization": zero}


def _project_file(path: str) -> Path:
    """Return the path of a file in the config: relative to the working directory or the project."""
    file = Path(path).expanduser()
    return file if file.is_absolute() or file.exists() else ROOT / file


def _curve(values: list[float]) -> Series:
    """Return at most CURVE_POINTS points: a step, and the mean since the previous point."""
    stride = max(-(-len(values) // CURVE_POINTS), 1)
    pieces = [values[i : i + stride] for i in range(0, len(values), stride)]
    return [(i * stride + len(piece), sum(piece) / len(piece)) for i, piece in enumerate(pieces)]


def training_identity(config: Config, section: str) -> dict[str, object]:
    """Return what of the config decides a training: its section, DeepSpeed's file, the position.

    `scoring.branch_memory_mib` is left out, here as in every stage's identity: it decides in how
    many forwards the same scores are computed, which changes their rounding only. A run with more
    or less memory reuses the stages that it has.
    """
    training = config.training
    return {
        "optimization": getattr(training, section).model_dump(mode="json"),
        "workers": training.workers,
        "precision": precision_of(training),
        "micro_batch_tokens": training.micro_batch_tokens,
        "gradient_checkpointing": training.gradient_checkpointing,
        "evaluation": [training.evaluation_pairs, training.evaluation_steps],
        "deepspeed": _deepspeed(training),
        "position": config.scoring.position,
        "seed": config.seed,
    }
