"""Runs the trials of a study with Ray Tune."""

import os
import shutil
from pathlib import Path

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from jobs.tuning.log import TrialLog
from jobs.tuning.study import Study
from jobs.tuning.trial import FULL_PERCENT, LOCKS, PERCENT, TrialJob, ray_train_folder, run_trial
from orchestrator.config.tree import Config
from orchestrator.tuning.options import TuningOptions

GRACE = 25.0  # percent of the steps that every trial runs before ASHA may stop it
REDUCTION = 2.0  # the better half of the trials continues at 25 % and at 50 % of the steps
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has the results
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver handles it
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables appear in spite of verbose=0
}


def run_trials(study: Study, log: TrialLog) -> None:
    """Run the trials; outcomes of earlier runs are reported to the scheduler again.

    A trial that fails does not stop the others.

    Args:
        study: the tuning.
        log: receives the outcomes.
    """
    os.environ.update(SETTINGS)
    folder = study.store.local / "ray_tune"
    shutil.rmtree(folder, ignore_errors=True)  # outcomes are stored elsewhere
    options = study.options
    jobs = [_job(study, trial.number, log) for trial in study.trials]
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, jobs=jobs), {"cpu": study.base.cluster.actor_cpus}
        ),
        param_space={"number": tune.grid_search([job.number for job in jobs])},
        tune_config=tune.TuneConfig(
            metric=options.metric,
            mode=options.mode,
            scheduler=_scheduler(options),
            max_concurrent_trials=options.concurrent,
        ),
        run_config=tune.RunConfig(
            name=study.key,
            storage_path=str(folder),
            callbacks=[log],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        log.end_open_runs()
        shutil.rmtree(folder, ignore_errors=True)
        _clear(study, log)


def _clear(study: Study, log: TrialLog) -> None:
    """Remove partial outputs of stopped and failed trials; an interrupted one can be resumed."""
    store = study.store
    shutil.rmtree(store.local / LOCKS, ignore_errors=True)
    for trial in study.trials:
        for step in study.steps_of(trial):
            store.clear_unfinished(step.stage)
        if trial.number in log.outcomes:
            shutil.rmtree(store.local / ray_train_folder(trial.stage), ignore_errors=True)


def _scheduler(options: TuningOptions) -> TrialScheduler:
    """Return the scheduler. ASHA compares trials by the share of their steps that is done."""
    if options.scheduler == "fifo":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr=PERCENT, max_t=FULL_PERCENT, grace_period=GRACE, reduction_factor=REDUCTION
    )


def _job(study: Study, number: int, log: TrialLog) -> TrialJob:
    """Return what a trial needs."""
    trial = study.trials[number - 1]
    return TrialJob(
        number,
        _with_share_of_cores(trial.plan.config, study.options.concurrent),
        study.store.root,
        str(Path.cwd()),
        trial.plan.stages,
        trial.plan.models,
        tuple(study.steps_of(trial)),
        study.options.metric,
        log.earlier[number],
    )


def _with_share_of_cores(config: Config, concurrent: int) -> Config:
    """Return the config with the machine's cores divided among the concurrent trials."""
    if concurrent == 1:
        return config
    cores = config.cluster.threads or int(ray.cluster_resources().get("CPU", 1))
    cluster = config.cluster.model_copy(update={"threads": max(cores // concurrent, 1)})
    return config.model_copy(update={"cluster": cluster})
