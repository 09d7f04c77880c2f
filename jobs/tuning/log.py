"""The driver's ears in Ray Tune: each trial's MLflow run, its line on the console, its outcome."""

import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from jobs.sweep.runner import StageFailed
from jobs.sweep.trainer import free_place
from jobs.tuning.study import Study, Trial
from jobs.tuning.trial import FINISHED, PERCENT, STEP, WHOLE, trainings_of
from orchestrator.tracking.mlflow_tracker import Status, Tracker
from orchestrator.tuning.outcomes import Outcome, Point, ranked, read_outcome, write_outcome

STATUS: dict[str, Status] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class TrialLog(tune.Callback):  # type: ignore[misc]
    """Hears of all trials in the driver, which alone writes to MLflow.

    Args:
        study: what is tuned.
        tracker: MLflow.
        parent: run id of the tuning.
    """

    def __init__(self, study: Study, tracker: Tracker, parent: str) -> None:
        self.study, self._tracker, self._parent = study, tracker, parent
        self._sweep = study.trials[0].plan.sweep
        self._store, self._console = self._sweep.store, self._sweep.console
        self._runs: dict[int, str] = {}
        self._started: dict[int, float] = {}
        self._points: dict[int, list[Point]] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.known = read_outcomes(study)
        self._models = {
            step.stage.key: step.stage
            for trial in study.trials
            for step in study.own(trial)
            if step.stage.keeps_checkpoint
        }
        self._there_before = {k for k, stage in self._models.items() if self._store.done(stage)}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to disk, and nobody reads them back."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        """Opens the trial's run."""
        self._open(self._trial(trial))

    def tell_known(self) -> None:
        """Tells of trials of which everything is known, without Ray Tune."""
        for trial in self.study.trials:
            known = self.known[trial.number]
            assert known is not None
            self._open(trial)
            for point in known.points:
                self._log_point(trial.number, point)
            self._end(trial, known)

    def _open(self, found: Trial) -> None:
        name = f"trial_{found.number:02}"
        run = self._tracker.stage_run(self._parent, name, f"{found.number}-{found.stage.key}")
        tags = {"kind": "trial", "model": self.study.request.model, "key": found.stage.key}
        self._tracker.log(run, params=found.values, tags=tags)
        self._runs[found.number], self._started[found.number] = run, time.monotonic()
        self._points[found.number] = []

    def on_trial_result(
        self, iteration: int, trials: Any, trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Notes measures on the way; the last ones come with the model."""
        number = self._trial(trial).number
        if result.get(FINISHED):
            return
        measures = {n: float(v) for n, v in result.items() if n.startswith("held_out_")}
        point = Point(result[PERCENT] / WHOLE, int(result[STEP]), measures)
        self._points[number].append(point)
        self._log_point(number, point)
        if self.known[number] is None:
            value = result[self.study.request.metric]
            self._say(number, f"step {point.step}, {self.study.request.metric} {value:.4g}")

    def on_trial_complete(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        """Ends the trial's run; of the trained models the best are kept."""
        found, last = self._trial(trial), trial.last_result
        finished = bool(last.get(FINISHED))
        outcome = self.known[found.number] or Outcome(
            "finished" if finished else "stopped",
            self.study.key,
            self._points[found.number],
            self._store.marker(found.stage)["figures"]["metrics"] if finished else {},
            time.monotonic() - self._started[found.number],
            sorted(self._models_of(found) - self._there_before),
        )
        if self.known[found.number] is None:
            write_outcome(_file(found), outcome)
        self._end(found, outcome)
        self._keep_the_best()

    def on_trial_error(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        """Ends the run of a trial that raised; the others go on."""
        found = self._trial(trial)
        # Ray's own way reads the error where it is copied to later on.
        error = Path(trial.error_file)
        message = cause_of(error.read_text() if error.is_file() else "")
        seconds = time.monotonic() - self._started.get(found.number, time.monotonic())
        points = self._points.get(found.number, [])
        outcome = Outcome("failed", self.study.key, points, seconds=seconds, error=message)
        if found.number not in self._runs:
            self._open(found)
        self._end(found, outcome)

    def end_what_is_open(self) -> None:
        """Ends the runs of trials under way, of which nothing more will come."""
        for number in set(self._runs) - set(self.outcomes):
            self._tracker.finish(self._runs[number], "KILLED")

    def _log_point(self, number: int, point: Point) -> None:
        series = {name: [(point.step, value)] for name, value in point.measures.items()}
        self._tracker.log_series(self._runs[number], series)

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        free_place(self._store.local / trainings_of(trial.stage))
        run, metric = self._runs[trial.number], self.study.request.metric
        if outcome.state == "finished" and self._store.done(trial.stage):
            series = self._store.marker(trial.stage)["figures"]["series"]
            self._tracker.log_series(run, series)
        self._tracker.log(
            run,
            metrics={**outcome.metrics, "trial_seconds": outcome.seconds},
            tags={"outcome": outcome.state} | ({"error": outcome.error} if outcome.error else {}),
        )
        self._tracker.finish(run, STATUS[outcome.state])
        self.outcomes[trial.number] = outcome
        value = outcome.value(metric)
        about = outcome.error or ("" if value is None else f"{metric} {value:.4g}")
        again = "as before, " if self.known[trial.number] else ""
        self._say(trial.number, f"{outcome.state}: {again}{about}")

    def _keep_the_best(self) -> None:
        """Forgets what trials have trained but for the best `storage.checkpoints_kept`."""
        request, kept = self.study.request, self.study.base.storage.checkpoints_kept
        best = ranked(self.outcomes, request.metric, request.mode)[:kept]
        needed: set[str] = set()
        for trial in self.study.trials:
            if trial.number in best or trial.number not in self.outcomes:
                needed |= self._models_of(trial)
        made = {key for outcome in self.outcomes.values() for key in outcome.made}
        for key in (made & set(self._models)) - needed:
            self._store.forget(self._models[key])

    def _models_of(self, trial: Trial) -> set[str]:
        return {step.stage.key for step in self.study.own(trial)} & set(self._models)

    def _say(self, number: int, text: str) -> None:
        line = f"[trial {number}/{len(self.study.trials)}] {text}"
        self._console.print(line, highlight=False, markup=False)

    def _trial(self, trial: TuneTrial) -> Trial:
        return self.study.trials[int(trial.config["number"]) - 1]


def cause_of(text: str) -> str:
    """What went wrong, in a line, of what Ray says of a trial that raised or died."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = f"{StageFailed.__name__}: "
    for number in range(len(lines) - 1, -1, -1):
        if named in lines[number]:
            return " ".join([lines[number].split(named, 1)[1], *lines[number + 1 :]])
    return lines[-1] if lines else "it ended without a word"


def read_outcomes(study: Study) -> dict[int, Outcome | None]:
    """What earlier runs have left of a study's trials, by number."""
    return {trial.number: read_outcome(_file(trial), study.key) for trial in study.trials}


def _file(trial: Trial) -> Path:
    return trial.plan.sweep.store.local / "tune" / "trials" / f"{trial.stage.key}.json"
