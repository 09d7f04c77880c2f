"""What all trainings share: the job of a config section, progress, curves for MLflow."""

import json
from pathlib import Path
from typing import Any, Literal

from actors.training import JobState
from jobs.steps.sweep import Figures, Sweep, project_file
from orchestrator.config.sections import Optimization
from orchestrator.stages.progress import Meter
from orchestrator.training.loop import TrainingJob

CURVE_POINTS = 100  # of a training's curve in MLflow and the report; each is a mean over steps


def train(
    sweep: Sweep,
    objective: Literal["language_modelling", "bradley_terry"],
    start: Literal["policy", "policy_to_reward", "reward"],
    checkpoint: str,
    optimization: Optimization,
    folder: Path,
    meter: Meter,
    steps: int | None = None,
) -> Figures:
    """Trains on ``folder``/examples.parquet into ``folder``/checkpoint on the warm group."""
    training = sweep.config.training
    deepspeed = json.loads(project_file(training.deepspeed).read_text())
    deepspeed["zero_optimization"] = {
        **deepspeed.get("zero_optimization", {}),
        "stage": training.zero_stage,
    }
    job = TrainingJob(
        objective=objective,
        start=start,
        checkpoint=checkpoint,
        examples=str(folder / "examples.parquet"),
        output=str(folder / "checkpoint"),
        learning_rate=optimization.learning_rate,
        batch_size=optimization.batch_size,
        epochs=optimization.epochs,
        steps=steps or optimization.max_steps,
        warmup_steps=optimization.warmup_steps,
        closed=sweep.config.scoring.position == "closed",
        seed=sweep.config.seed,
        deepspeed=deepspeed,
        precision=training.precision,
    )

    def progress(state: JobState) -> None:
        if state.steps:
            meter.update(state.done_steps, state.steps, note=f"loss {state.loss:.3f}")

    result = sweep.trainer().train(job, progress)
    last = result["loss"][-max(len(result["loss"]) // 10, 1) :]
    return {
        "metrics": {
            "steps": result["steps"],
            "rows": result["rows"],
            "partial_pairs": result["partial_pairs"],
            "train_seconds": result["seconds"],
            "final_loss": sum(last) / len(last),
        },
        "series": {
            "loss": _curve(result["loss"]),
            "train_accuracy": _curve(result["accuracy"]),
        },
    }


def _curve(values: list[float]) -> list[tuple[int, float]]:
    """(step, mean since the last point) at most CURVE_POINTS times."""
    stride = max(-(-len(values) // CURVE_POINTS), 1)
    pieces = [values[i : i + stride] for i in range(0, len(values), stride)]
    return [(i * stride + len(piece), sum(piece) / len(piece)) for i, piece in enumerate(pieces)]


def training_identity(sweep_config: Any, section: str) -> dict[str, Any]:
    """What of the config decides a training: its own section, DeepSpeed's file, the position."""
    training = sweep_config.training
    return {
        "optimization": getattr(training, section).model_dump(mode="json"),
        "workers": training.workers,
        "zero_stage": training.zero_stage,
        "precision": training.precision,
        "deepspeed": json.loads(project_file(training.deepspeed).read_text()),
        "position": sweep_config.scoring.position,
        "seed": sweep_config.seed,
    }
