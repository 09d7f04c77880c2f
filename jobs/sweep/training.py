"""What all trainings share: the job of a config section, progress, curves for MLflow."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actors.training import JobState
from jobs.sweep.sweep import Figures, Step, Sweep, project_file
from orchestrator.config.sections import Reading
from orchestrator.config.training import Optimization, TrainingConfig
from orchestrator.stages.progress import Meter
from orchestrator.training.job import Precision, Start, TrainingJob

CURVE_POINTS = 100  # of a training's curve in MLflow and the report; each is a mean over steps


def train(
    sweep: Sweep,
    step: Step,
    objective: str,
    start: Start,
    checkpoint: str,
    optimization: Optimization,
    folder: Path,
    meter: Meter,
    steps: int | None = None,
    examples: Path | None = None,
    held_out: Path | None = None,
    beta: float = 1.0,
    reading: Reading = Reading(),  # noqa: B008 - frozen
) -> Figures:
    """Trains into ``folder``/checkpoint on the warm group.

    On ``examples``, without them on ``folder``/examples.parquet; measured on ``held_out``, without
    it on ``folder``/held_out.parquet where that is.
    """
    training = sweep.config.training
    if held_out is None and (folder / "held_out.parquet").is_file():
        held_out = folder / "held_out.parquet"
    job = TrainingJob(
        key=step.stage.key,
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
        closed=sweep.config.scoring.position == "closed",
        seed=sweep.config.seed,
        deepspeed=_deepspeed(training),
        precision=precision_of(training),
        micro_batch_tokens=training.micro_batch_tokens,
        gradient_checkpointing=training.gradient_checkpointing,
        checkpoint_steps=training.checkpoint_steps,
        evaluation=str(held_out) if held_out else None,
        evaluation_steps=training.evaluation_steps,
        beta=beta,
        branch_memory_mib=sweep.config.scoring.branch_memory_mib,
        score_label=reading.score_label,
        score_at=reading.score_at,
    )
    result = sweep.trainer().train(job, _progress(sweep, step, meter))
    if result["resumed_at"]:
        sweep.console.print(
            f"{step.stage.name}: taken up again after step {result['resumed_at']}", highlight=False
        )
    return _figures(result)


def _progress(sweep: Sweep, step: Step, meter: Meter) -> Callable[[JobState], None]:
    """What hears of a training under way: shows it, and passes each measurement on once."""
    heard: set[int] = set()

    def progress(state: JobState) -> None:
        if not state.steps:
            return
        meter.update(state.done_steps, state.steps, note=_note(state))
        for number in sorted(set(state.measures) - heard):
            heard.add(number)
            share = number / state.steps
            sweep.measured(step.stage.name, share, number, state.measures[number])

    return progress


def _figures(result: Mapping[str, Any]) -> Figures:
    """Metrics and curves of a finished training; the final loss is that of its last tenth."""
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
    """The last loss, and the last held-out accuracy where there is one."""
    last = state.measures[max(state.measures)] if state.measures else {}
    accuracy = last.get("held_out_accuracy")
    return f"loss {state.loss:.3f}" + (
        "" if accuracy is None else f", held-out accuracy {accuracy:.3f}"
    )


def precision_of(training: TrainingConfig) -> Precision:
    """The precision that models are trained in.

    Raises:
        ValueError: it is `auto`, for which a plan puts what it stands for.
    """
    if training.precision == "auto":
        raise ValueError("training.precision = 'auto': not settled; a plan's config has it settled")
    return training.precision


def _deepspeed(training: TrainingConfig) -> dict[str, Any]:
    """DeepSpeed's file with the config's ZeRO stage."""
    content: dict[str, Any] = json.loads(project_file(training.deepspeed).read_text())
    zero = {**content.get("zero_optimization", {}), "stage": training.zero_stage}
    return {**content, "zero_optimization": zero}


def _curve(values: list[float]) -> list[tuple[int, float]]:
    """(step, mean since the last point) at most CURVE_POINTS times."""
    stride = max(-(-len(values) // CURVE_POINTS), 1)
    pieces = [values[i : i + stride] for i in range(0, len(values), stride)]
    return [(i * stride + len(piece), sum(piece) / len(piece)) for i, piece in enumerate(pieces)]


def training_identity(sweep_config: Any, section: str) -> dict[str, Any]:
    """What of the config decides a training: its own section, DeepSpeed's file, the position.

    `scoring.branch_memory_mib` is left out, here as in every stage's identity: it says in how many
    forwards the same scores are computed, which changes their rounding and nothing else. A run that
    is given more or less memory goes on with what it has.
    """
    training = sweep_config.training
    return {
        "optimization": getattr(training, section).model_dump(mode="json"),
        "workers": training.workers,
        "precision": precision_of(training),
        "micro_batch_tokens": training.micro_batch_tokens,
        "gradient_checkpointing": training.gradient_checkpointing,
        "evaluation": [training.evaluation_pairs, training.evaluation_steps],
        "deepspeed": _deepspeed(training),
        "position": sweep_config.scoring.position,
        "seed": sweep_config.seed,
    }
