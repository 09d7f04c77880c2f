"""What came of trials: the best of them, what a later run takes up, what MLflow and disk hold."""

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from ray.tune.experiment import Trial as TuneTrial
from rich.console import Console

from jobs.command_line.exit_codes import FAILED, OK
from jobs.tuning.log import TrialLog
from jobs.tuning.main import _show
from jobs.tuning.study import Study, study_of
from orchestrator.config.load import ROOT, load_config
from orchestrator.stages.result import Series, StageResult
from orchestrator.tracking.mlflow_tracker import Tracker
from orchestrator.tuning.options import TuningOptions
from orchestrator.tuning.outcomes import (
    OLD_NAMES,
    HeldOutEvaluation,
    Outcome,
    ranked,
    read_outcome,
    write_outcome,
)

METRIC = "held_out_accuracy"
QUIET = Console(quiet=True)


def finished(value: float) -> Outcome:
    return Outcome("finished", "study", metrics={METRIC: value, "steps": 8})


def test_the_best_is_the_best_of_those_that_were_finished() -> None:
    found = {
        1: finished(0.6), 2: finished(0.8), 3: finished(0.8), 4: finished(math.nan),
        5: Outcome("stopped", "study", [HeldOutEvaluation(0.5, 4, {METRIC: 0.9})]),
        6: Outcome("failed", "study", error="no"), 7: finished(0.7),
    }  # fmt: skip
    assert ranked(found, METRIC, "max") == [2, 3, 7, 1]
    assert ranked(found, METRIC, "min") == [1, 7, 2, 3]
    assert ranked({5: found[5], 6: found[6]}, METRIC, "max") == []
    assert ranked(found, "held_out_loss", "max") == []


def test_an_outcome_is_read_back_and_one_that_was_stopped_is_its_studys_alone(
    tmp_path: Path,
) -> None:
    done = Outcome(
        "finished", "one", [HeldOutEvaluation(0.5, 4, {METRIC: 0.5})], {METRIC: 0.7}, 3.5, ["key"]
    )
    stopped = Outcome(
        "stopped", "one", [HeldOutEvaluation(0.25, 2, {METRIC: 0.5}), HeldOutEvaluation(0.5, 4, {})]
    )
    for name, outcome in {"done": done, "stopped": stopped}.items():
        write_outcome(tmp_path / "tune" / name, outcome)
        assert read_outcome(tmp_path / "tune" / name, "one") == outcome
    assert read_outcome(tmp_path / "tune" / "done", "two") == done
    assert read_outcome(tmp_path / "tune" / "stopped", "two") is None
    assert read_outcome(tmp_path / "tune" / "none", "one") is None
    assert (stopped.value(METRIC), stopped.steps) == (0.5, 4)
    text = (tmp_path / "tune" / "done").read_text()
    for old, new in OLD_NAMES.items():
        text = text.replace(f'"{new}"', f'"{old}"')
    (tmp_path / "tune" / "earlier version").write_text(text)
    assert '"made"' in text and read_outcome(tmp_path / "tune" / "earlier version", "two") == done
    assert (done.value(METRIC), done.value("held_out_loss")) == (0.7, None)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Four learning rates, two models kept."""
    request = TuningOptions(
        "prm_sst", ["training.prm.learning_rate=choice(0.1,0.2,0.3,0.4)"], 4, METRIC, "max", 1,
        "asha",
    )  # fmt: skip
    overrides = [f"output_dir={tmp_path}/out", "storage.checkpoints_kept=2"]
    return study_of(request, ROOT / "configs" / "smoke.yaml", overrides)[0]


def make(study: Study, number: int, value: float) -> None:
    """What the trial's own process leaves in the store."""
    stage, store = study.trials[number - 1].stage, study.store
    series: dict[str, Series] = {"loss": [(4, 1.0), (8, 0.5)], METRIC: [(8, value)]}
    result: StageResult = {"metrics": {METRIC: value, "steps": 8}, "series": series}
    with store.writing(stage, result) as folder:
        (folder / "checkpoint").mkdir()


def tell(log: TrialLog, number: int, value: float | None, points: tuple[float, ...] = ()) -> None:
    """The calls that Ray Tune makes for a trial: a value in the end, or None for a stopped one."""
    trial = TuneTrial("run_trial", config={"number": number}, stub=True)
    log.on_trial_start(0, [trial], trial)
    for step, point in enumerate(points, 1):
        result = {METRIC: point, "percent": 25.0 * step, "training_step": 2 * step}
        trial.run_metadata.last_result = result
        log.on_trial_result(0, [trial], trial, result)
    if value is not None:
        make(log.study, number, value)
        last = {METRIC: value, "percent": 100.0, "training_step": 8, "finished": True}
        trial.run_metadata.last_result = last
        log.on_trial_result(0, [trial], trial, last)
    log.on_trial_complete(0, [trial], trial)


def test_the_driver_notes_each_trial_and_keeps_the_best_models(
    study: Study, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = Tracker(uri, "tuning")
    parent = tracker.start_sweep(study.key, "tune", {}, "")
    store = study.store
    make(study, 1, 0.3)  # by another job, before
    log = TrialLog(study, tracker, parent, QUIET)
    tell(log, 1, 0.3)
    for number, value in ((2, 0.7), (3, 0.5)):
        tell(log, number, value, (0.2, 0.4))
    tell(log, 4, None, (0.1,))
    assert {n: outcome.state for n, outcome in log.outcomes.items()} == {
        1: "finished", 2: "finished", 3: "finished", 4: "stopped",
    }  # fmt: skip
    assert [store.done(trial.stage) for trial in study.trials] == [True, True, True, False]

    client = MlflowClient(uri)
    runs = client.search_runs(
        [tracker.experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{tracker.run_id(parent)}'"
    )
    by_name = {run.info.run_name: run for run in runs}
    assert {name: run.info.status for name, run in by_name.items()} == {
        "trial_01": "FINISHED", "trial_02": "FINISHED", "trial_03": "FINISHED",
        "trial_04": "KILLED",
    }  # fmt: skip
    second = by_name["trial_02"]
    rate = study.trials[1].values["training.prm.learning_rate"]
    assert second.data.params["training.prm.learning_rate"] == str(rate)
    assert second.data.metrics[METRIC] == 0.7
    curve = client.get_metric_history(second.info.run_id, METRIC)
    assert [(point.step, point.value) for point in curve ] == [
        (2, 0.2), (4, 0.4), (8, 0.7),
    ]  # fmt: skip
    losses = client.get_metric_history(second.info.run_id, "loss")
    assert [(point.step, point.value) for point in losses] == [(4, 1.0), (8, 0.5)]

    again = TrialLog(study, tracker, parent, QUIET)
    again.log_earlier()
    assert again.outcomes == log.outcomes
    assert len(client.search_runs([tracker.experiment_id])) == 5


def test_a_trial_that_fails_now_is_not_shown_as_of_an_earlier_run(
    study: Study, tmp_path: Path
) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "tuning")
    parent = tracker.start_sweep(study.key, "tune", {}, "")
    tell(TrialLog(study, tracker, parent, QUIET), 1, 0.3)
    console = Console(record=True, width=200, file=io.StringIO(), markup=False)
    log = TrialLog(study, tracker, parent, console)
    error_file = tmp_path / "error.txt"
    error_file.write_text("the disk is full\n")
    trial = cast("TuneTrial", SimpleNamespace(config={"number": 1}, error_file=error_file))
    log.on_trial_error(0, [trial], trial)
    tell(log, 1, None)
    failed, earlier = console.export_text().splitlines()
    assert failed == "[trial 1/4] failed: the disk is full"
    assert earlier == f"[trial 1/4] finished: earlier run, {METRIC} 0.3"


def test_of_more_models_than_are_kept_the_worst_that_it_made_is_forgotten(
    study: Study, tmp_path: Path
) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "tuning")
    store = study.store
    log = TrialLog(study, tracker, tracker.start_sweep(study.key, "tune", {}, ""), QUIET)
    for number, value in ((1, 0.6), (2, 0.5), (3, 0.7)):
        tell(log, number, value)
    assert [store.done(trial.stage) for trial in study.trials] == [True, False, True, False]
    tell(log, 4, 0.65)
    assert [store.done(trial.stage) for trial in study.trials] == [False, False, True, True]
    assert ranked(log.outcomes, METRIC, "max") == [3, 4, 1, 2], "what is known of them stays"


def test_the_best_config_is_written_and_where_all_failed_the_job_fails(
    study: Study, tmp_path: Path
) -> None:
    tracker, out = (
        Tracker(f"sqlite:///{tmp_path}/mlflow.db", "tuning"),
        tmp_path / "a" / "best.yaml",
    )
    parent = tracker.start_sweep(study.key, "tune", {}, "")
    log = TrialLog(study, tracker, parent, QUIET)
    log.outcomes = {n: Outcome("failed", study.key, error="no") for n in (1, 2, 3, 4)}
    assert _show(study, log, tracker, parent, out, QUIET) == FAILED and not out.exists()
    make(study, 2, 0.7)
    log.outcomes[2] = finished(0.7)
    assert _show(study, log, tracker, parent, out, QUIET) == OK
    assert load_config(out) == study.trials[1].plan.requested
    run = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(tracker.run_id(parent))
    assert run.data.metrics[f"best_{METRIC}"] == 0.7 and run.data.tags["best_trial"] == "2"
