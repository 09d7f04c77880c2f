"""What came of the trials of a tuning: kept on disk, so that a later run goes on; and the best."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from orchestrator.tuning.request import Mode

State = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Point:
    """Held-out measures after a step, ``share`` of the training's steps being done then."""

    share: float
    step: int
    measures: dict[str, float]


@dataclass
class Outcome:
    """What came of one trial.

    Attributes:
        state: "stopped" by the scheduler, because others were better when as much was done.
        study: key of the tuning that it was a trial of; another one may not have stopped it.
        points: measures on the way.
        metrics: the training's figures, of a finished trial.
        seconds: wall time of the trial, with the start of its training group.
        made: keys of the models that it trained; others were there before.
        error: message of a failed one.
    """

    state: State
    study: str
    points: list[Point] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    made: list[str] = field(default_factory=list)
    error: str = ""

    def value(self, metric: str) -> float | None:
        """The last known value of a metric."""
        if metric in self.metrics:
            return self.metrics[metric]
        known = [point.measures[metric] for point in self.points if metric in point.measures]
        return known[-1] if known else None

    @property
    def steps(self) -> int:
        """Optimizer steps that were done, as far as is known."""
        if "steps" in self.metrics:
            return int(self.metrics["steps"])
        return self.points[-1].step if self.points else 0


def ranked(outcomes: Mapping[int, Outcome], metric: str, mode: Mode) -> list[int]:
    """The finished trials' numbers, the best first; of equal ones the first drawn."""
    sign = -1.0 if mode == "max" else 1.0
    found = {
        number: value
        for number, outcome in outcomes.items()
        if outcome.state == "finished"
        and (value := outcome.value(metric)) is not None
        and math.isfinite(value)
    }
    return sorted(found, key=lambda number: (sign * found[number], number))


def write_outcome(file: Path, outcome: Outcome) -> None:
    """Writes an outcome whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(asdict(outcome), indent=1))
    partial.replace(file)


def read_outcome(file: Path, study: str) -> Outcome | None:
    """What an earlier run left that holds for this study; None where there is nothing.

    A finished trial holds for every study, one that was stopped for its own alone.
    """
    if not file.is_file():
        return None
    plain = json.loads(file.read_text())
    plain["points"] = [Point(**point) for point in plain["points"]]
    found = Outcome(**plain)
    return found if found.state == "finished" or found.study == study else None
