"""Runs the trials of a study under Ray Tune."""

import os
import shutil
from pathlib import Path

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from jobs.tuning.log import TrialLog
from jobs.tuning.study import Study
from jobs.tuning.trial import LOCKS, PERCENT, WHOLE, TrialJob, run_trial, trainings_of
from orchestrator.config.tree import Config
from orchestrator.tuning.request import Request

GRACE = 25.0  # percent of its steps that every trial may do
REDUCTION = 2.0  # the better half goes on, at 25 % and at 50 %
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has the results
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver's own way out
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # whose tables come in spite of verbose=0
}


def run_trials(study: Study, log: TrialLog) -> None:
    """Runs what is not known yet; what is known is told to the scheduler once more.

    One that raises does not stop the others; `log` has the outcomes.
    """
    os.environ.update(SETTINGS)
    sweep = study.trials[0].plan.sweep
    place = sweep.store.local / "ray_tune"
    shutil.rmtree(place, ignore_errors=True)  # outcomes are kept elsewhere: nothing is restored
    request = study.request
    jobs = [_job(study, trial.number, log) for trial in study.trials]
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, jobs=jobs), {"cpu": study.base.cluster.actor_cpus}
        ),
        param_space={"number": tune.grid_search([job.number for job in jobs])},
        tune_config=tune.TuneConfig(
            metric=request.metric,
            mode=request.mode,
            scheduler=_scheduler(request),
            max_concurrent_trials=request.concurrent,
        ),
        run_config=tune.RunConfig(
            name=study.key,
            storage_path=str(place),
            callbacks=[log],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        log.end_what_is_open()
        shutil.rmtree(place, ignore_errors=True)
        _clear(study, log)


def _clear(study: Study, log: TrialLog) -> None:
    """Removes what stopped and failed trials left half-done; one that was cut short goes on."""
    store = study.trials[0].plan.sweep.store
    shutil.rmtree(store.local / LOCKS, ignore_errors=True)
    for trial in study.trials:
        for step in study.own(trial):
            store.clear_unfinished(step.stage)
        if trial.number in log.outcomes:
            shutil.rmtree(store.local / trainings_of(trial.stage), ignore_errors=True)


def _scheduler(request: Request) -> TrialScheduler:
    """ASHA compares trials by the share of their steps: another batch size is another number."""
    if request.scheduler == "fifo":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr=PERCENT, max_t=WHOLE, grace_period=GRACE, reduction_factor=REDUCTION
    )


def _job(study: Study, number: int, log: TrialLog) -> TrialJob:
    trial = study.trials[number - 1]
    sweep = trial.plan.sweep
    return TrialJob(
        number,
        _with_its_cores(trial.plan.config, study.request.concurrent),
        sweep.store.root,
        str(Path.cwd()),
        sweep.stages,
        sweep.models,
        tuple(study.own(trial)),
        study.request.metric,
        log.known[number],
    )


def _with_its_cores(config: Config, concurrent: int) -> Config:
    """The config with the cores of a machine shared out among the trials that run at once."""
    if concurrent == 1:
        return config
    cores = config.cluster.threads or int(ray.cluster_resources().get("CPU", 1))
    cluster = config.cluster.model_copy(update={"threads": max(cores // concurrent, 1)})
    return config.model_copy(update={"cluster": cluster})
