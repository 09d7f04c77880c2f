"""The driver's callback for Ray Tune: MLflow runs, console lines and outcomes of the trials."""

import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from rich.console import Console

from jobs.sweep.runner import StageFailed
from jobs.sweep.training_group import free_placement_group
from jobs.tuning.study import Study, Trial
from jobs.tuning.trial import FINISHED, FULL_PERCENT, PERCENT, STEP, ray_train_folder
from orchestrator.tracking.mlflow_tracker import RunRef, Status, Tracker
from orchestrator.tuning.outcomes import (
    HeldOutEvaluation,
    Outcome,
    ranked,
    read_outcome,
    write_outcome,
)

STATUS: dict[str, Status] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class TrialLog(tune.Callback):  # type: ignore[misc]
    """Logs all trials; it runs in the driver, the only process that writes to MLflow.

    Args:
        study: the tuning.
        tracker: writes to MLflow.
        parent: MLflow run of the tuning.
        console: shows the trials.
    """

    def __init__(self, study: Study, tracker: Tracker, parent: RunRef, console: Console) -> None:
        self.study, self._tracker, self._parent = study, tracker, parent
        self._store, self._console = study.store, console
        self._runs: dict[int, RunRef] = {}
        self._started: dict[int, float] = {}
        self._evaluations: dict[int, list[HeldOutEvaluation]] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.earlier = read_outcomes(study)
        self._model_stages = {
            step.stage.key: step.stage
            for trial in study.trials
            for step in study.steps_of(trial)
            if step.stage.keeps_checkpoint
        }
        self._existing_keys = {
            k for k, stage in self._model_stages.items() if self._store.done(stage)
        }

    def __getstate__(self) -> dict[str, object]:
        """Return an empty state; Ray Tune writes its callbacks to disk, and nothing reads them."""
        return {}

    def on_trial_start(
        self, iteration: int, trials: object, trial: TuneTrial, **info: object
    ) -> None:
        """Start the MLflow run of a trial."""
        self._open(self._trial(trial))

    def log_earlier(self) -> None:
        """Log the outcomes of earlier runs of all trials, without Ray Tune."""
        for trial in self.study.trials:
            outcome = self.earlier[trial.number]
            assert outcome is not None
            self._open(trial)
            for evaluation in outcome.evaluations:
                self._log_evaluation(trial.number, evaluation)
            self._end(trial, outcome)

    def _open(self, trial: Trial) -> None:
        name = f"trial_{trial.number:02}"
        run = self._tracker.stage_run(self._parent, name, f"{trial.number}-{trial.stage.key}")
        tags = {"kind": "trial", "model": self.study.options.model, "key": trial.stage.key}
        self._tracker.log(run, params=trial.values, tags=tags)
        self._runs[trial.number], self._started[trial.number] = run, time.monotonic()
        self._evaluations[trial.number] = []

    def on_trial_result(
        self,
        iteration: int,
        trials: object,
        trial: TuneTrial,
        result: dict[str, Any],
        **info: object,
    ) -> None:
        """Log metrics during a training; the last ones are logged at its end."""
        number = self._trial(trial).number
        if result.get(FINISHED):
            return
        measures = {n: float(v) for n, v in result.items() if n.startswith("held_out_")}
        evaluation = HeldOutEvaluation(result[PERCENT] / FULL_PERCENT, int(result[STEP]), measures)
        self._evaluations[number].append(evaluation)
        self._log_evaluation(number, evaluation)
        if self.earlier[number] is None:
            value = result[self.study.options.metric]
            self._print(number, f"step {evaluation.step}, {self.study.options.metric} {value:.4g}")

    def on_trial_complete(
        self, iteration: int, trials: object, trial: TuneTrial, **info: object
    ) -> None:
        """End the run of a finished or stopped trial, and remove models that are not the best."""
        study_trial, last = self._trial(trial), trial.last_result
        number, finished = study_trial.number, bool(last.get(FINISHED))
        outcome = self.earlier[number] or Outcome(
            "finished" if finished else "stopped",
            self.study.key,
            self._evaluations[number],
            self._store.marker(study_trial.stage)["figures"]["metrics"] if finished else {},
            time.monotonic() - self._started[number],
            sorted(self._model_keys_of(study_trial) - self._existing_keys),
        )
        if self.earlier[number] is None:
            write_outcome(_file(study_trial), outcome)
        self._end(study_trial, outcome)
        self._remove_worse_models()

    def on_trial_error(
        self, iteration: int, trials: object, trial: TuneTrial, **info: object
    ) -> None:
        """End the run of a trial that failed; the others continue."""
        study_trial = self._trial(trial)
        number = study_trial.number
        # Ray's own method reads the error from a copy that is made later.
        error = Path(trial.error_file)
        message = cause_of(error.read_text() if error.is_file() else "")
        seconds = time.monotonic() - self._started.get(number, time.monotonic())
        evaluations = self._evaluations.get(number, [])
        outcome = Outcome("failed", self.study.key, evaluations, seconds=seconds, error=message)
        if number not in self._runs:
            self._open(study_trial)
        self._end(study_trial, outcome)

    def end_open_runs(self) -> None:
        """End the MLflow runs of trials that have neither finished nor failed."""
        for number in set(self._runs) - set(self.outcomes):
            self._tracker.finish(self._runs[number], "KILLED")

    def _log_evaluation(self, number: int, evaluation: HeldOutEvaluation) -> None:
        series = {name: [(evaluation.step, value)] for name, value in evaluation.measures.items()}
        self._tracker.log_series(self._runs[number], series)

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        free_placement_group(self._store.local / ray_train_folder(trial.stage))
        run, metric = self._runs[trial.number], self.study.options.metric
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
        details = outcome.error or ("" if value is None else f"{metric} {value:.4g}")
        source = "earlier run, " if outcome is self.earlier[trial.number] else ""
        self._print(trial.number, f"{outcome.state}: {source}{details}")

    def _remove_worse_models(self) -> None:
        """Remove the models that trials of this study trained and that are no longer needed.

        Models of the best `storage.checkpoints_kept` finished trials and of trials without an
        outcome are needed.
        """
        options, kept = self.study.options, self.study.base.storage.checkpoints_kept
        best = ranked(self.outcomes, options.metric, options.mode)[:kept]
        needed: set[str] = set()
        for trial in self.study.trials:
            if trial.number in best or trial.number not in self.outcomes:
                needed |= self._model_keys_of(trial)
        trained = {key for outcome in self.outcomes.values() for key in outcome.trained_models}
        for key in (trained & set(self._model_stages)) - needed:
            self._store.invalidate(self._model_stages[key])

    def _model_keys_of(self, trial: Trial) -> set[str]:
        return {step.stage.key for step in self.study.steps_of(trial)} & set(self._model_stages)

    def _print(self, number: int, text: str) -> None:
        line = f"[trial {number}/{len(self.study.trials)}] {text}"
        self._console.print(line, highlight=False)

    def _trial(self, trial: TuneTrial) -> Trial:
        return self.study.trials[int(trial.config["number"]) - 1]


def cause_of(text: str) -> str:
    """Return the error in one line, from Ray's report of a trial that failed or died."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    prefix = f"{StageFailed.__name__}: "
    for number in range(len(lines) - 1, -1, -1):
        if prefix in lines[number]:
            return " ".join([lines[number].split(prefix, 1)[1], *lines[number + 1 :]])
    return lines[-1] if lines else "the process ended without an error message"


def read_outcomes(study: Study) -> dict[int, Outcome | None]:
    """Read the outcomes of earlier runs of a study's trials, by number; None if there is none."""
    return {trial.number: read_outcome(_file(trial), study.key) for trial in study.trials}


def _file(trial: Trial) -> Path:
    return trial.plan.store.local / "tune" / "trials" / f"{trial.stage.key}.json"
