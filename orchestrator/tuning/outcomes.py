"""Outcomes of the trials of a tuning, stored on disk so that a later run can resume."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from orchestrator.tuning.options import Mode

State = Literal["finished", "stopped", "failed"]
# Names in outcomes of earlier versions.
OLD_NAMES = {"study": "study_key", "points": "evaluations", "made": "trained_models"}


@dataclass(frozen=True)
class HeldOutEvaluation:
    """Held-out metrics during a training.

    Attributes:
        share: share of the steps of the training that were done.
        step: number of finished steps.
        measures: values by name.
    """

    share: float
    step: int
    measures: dict[str, float]


@dataclass
class Outcome:
    """The outcome of one trial.

    Attributes:
        state: "finished"; "stopped" early by the scheduler; or "failed".
        study_key: key of the tuning that the trial belongs to.
        evaluations: held-out metrics during the training.
        metrics: metrics of the training, of a finished trial.
        seconds: wall time of the trial, with the start of its training workers.
        trained_models: keys of the models that the trial trained itself.
        error: error message of a failed trial.
    """

    state: State
    study_key: str
    evaluations: list[HeldOutEvaluation] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    trained_models: list[str] = field(default_factory=list)
    error: str = ""

    def value(self, metric: str) -> float | None:
        """Return the last value of a metric; None if it was not measured."""
        if metric in self.metrics:
            return self.metrics[metric]
        values = [
            evaluation.measures[metric]
            for evaluation in self.evaluations
            if metric in evaluation.measures
        ]
        return values[-1] if values else None

    @property
    def steps(self) -> int:
        """Number of finished optimizer steps, up to the last measure of a stopped trial."""
        if "steps" in self.metrics:
            return int(self.metrics["steps"])
        return self.evaluations[-1].step if self.evaluations else 0


def ranked(outcomes: Mapping[int, Outcome], metric: str, mode: Mode) -> list[int]:
    """Return the numbers of the finished trials, the best first; ties by trial number."""
    sign = -1.0 if mode == "max" else 1.0
    values = {
        number: value
        for number, outcome in outcomes.items()
        if outcome.state == "finished"
        and (value := outcome.value(metric)) is not None
        and math.isfinite(value)
    }
    return sorted(values, key=lambda number: (sign * values[number], number))


def write_outcome(file: Path, outcome: Outcome) -> None:
    """Write an outcome to a file, atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(asdict(outcome), indent=1))
    partial.replace(file)


def read_outcome(file: Path, study_key: str) -> Outcome | None:
    """Read the outcome of an earlier run; None if there is none that is valid for this study.

    A finished trial is valid for every study. One that was stopped is valid for its own study only,
    because its scheduler compared it with other trials. Failed trials are not stored, so they run
    again.
    """
    if not file.is_file():
        return None
    stored = json.loads(file.read_text())
    data = {OLD_NAMES.get(name, name): value for name, value in stored.items()}
    data["evaluations"] = [HeldOutEvaluation(**evaluation) for evaluation in data["evaluations"]]
    outcome = Outcome(**data)
    return outcome if outcome.state == "finished" or outcome.study_key == study_key else None
