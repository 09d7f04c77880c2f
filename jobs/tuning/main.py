"""The tuning job: check the trials, run shared stages, run the trials, write the best config."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from jobs.command_line.exit_codes import FAILED, OK
from jobs.sweep.main import locked_output, run_and_catch_config_errors
from jobs.sweep.tracking import run_tracked, tracker_of
from jobs.tuning.trial_configs import draw
from orchestrator.config.load import load_config, to_yaml
from orchestrator.config.output_paths import check_target
from orchestrator.tuning.options import TuningOptions
from orchestrator.tuning.outcomes import Outcome, ranked
from orchestrator.tuning.space import as_overrides

if TYPE_CHECKING:  # these import Ray and torch
    from jobs.tuning.log import TrialLog
    from jobs.tuning.study import Study
    from orchestrator.tracking.mlflow_tracker import RunRef, Tracker


def tune_main(
    options: TuningOptions, config_file: Path | None, overrides: Sequence[str], out: Path | None
) -> int:
    """Run a tuning and return the exit code.

    It is 2 if the options or the config are not valid, and 1 if a stage or every trial failed.

    Args:
        options: options of the tuning.
        config_file: YAML file of the config; None is the embedded world's.
        overrides: overrides of the config.
        out: file for the best config; None is ``tune/MODEL.yaml`` in the output folder.
    """

    def work(console: Console) -> int:
        if out is not None:
            check_target("--out", out)
        drawn = draw(options, config_file, overrides)
        from jobs.tuning.study import study_of  # imports Ray and torch

        study, notice = study_of(options, config_file, overrides, drawn)
        console.print(notice, highlight=False)
        if len(study.trials) < options.trials:
            console.print(f"the search space has only {len(study.trials)} different trials")
        store = study.store
        with locked_output(store):
            return _tune(study, out or store.local / "tune" / f"{options.model}.yaml", console)

    return run_and_catch_config_errors(work)


def _tune(study: "Study", out: Path, console: Console) -> int:
    from jobs.sweep.runner import Runner
    from jobs.tuning.log import TrialLog, read_outcomes
    from jobs.tuning.trials import run_trials

    options, plan = study.options, study.trials[0].plan
    workspace = plan.workspace(console)
    tracker = tracker_of(plan.config, study.store, console)
    shared = plan.part(study.shared)
    all_done = all(read_outcomes(study).values())
    if not all_done or not all(study.store.done(step.stage) for step in shared.steps):
        _connect_to_ray(study, console)

    def work(parent: "RunRef") -> int:
        Runner(shared, workspace, tracker, parent).run()
        workspace.resources.close()  # each trial starts its own training workers
        log = TrialLog(study, tracker, parent, console)
        if all_done:
            log.log_earlier()
        else:
            run_trials(study, log)
        return _show(study, log, tracker, parent, out, console)

    params = {
        "model": options.model, "space": list(options.space), "trials": len(study.trials),
        "metric": options.metric, "mode": options.mode, "scheduler": options.scheduler,
    }  # fmt: skip
    name = f"{study.base.name} tune {options.model}"
    return run_tracked(tracker, study.key, name, params, workspace, work)


def _connect_to_ray(study: "Study", console: Console) -> None:
    from jobs.sweep import cluster
    from jobs.sweep.cluster_budget import check_trials

    options = study.options
    configs = [trial.plan.config for trial in study.trials]

    def check(cpus: float, gpus: float | None) -> None:
        check_trials(configs, options.concurrent, study.starts_actors, cpus, gpus)

    cluster.join(study.base, console, check)


def _show(
    study: "Study",
    log: "TrialLog",
    tracker: "Tracker",
    parent: "RunRef",
    out: Path,
    console: Console,
) -> int:
    """Print the trials and write the best config; return FAILED if no trial finished."""
    options = study.options
    order = ranked(log.outcomes, options.metric, options.mode)
    console.print(_table(study, log.outcomes, order))
    if not order:
        console.print("no trial finished: there is no best config", style="red")
        return FAILED
    best = study.trials[order[0] - 1]
    config = best.plan.requested
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(to_yaml(config))
    if load_config(out) != config:
        raise RuntimeError(f"{out}: the config read from the file differs from the one written")
    value = log.outcomes[best.number].value(options.metric)
    tracker.log(
        parent,
        params={f"best.{field}": value for field, value in best.values.items()},
        metrics={f"best_{options.metric}": value},
        tags={"kind": "tuning", "model": options.model, "best_trial": best.number},
    )
    model = study.store.folder(best.stage) / "checkpoint"
    lines = {
        "best:      ": f"trial {best.number}, {options.metric} {value:.6g}: "
        + " ".join(as_overrides(best.values)),
        "config:    ": out,
        "checkpoint:": model
        if model.is_dir()
        else "not kept; train it by jobs/train.py with this config",
        "MLflow:    ": tracker.ui_command(),
    }
    for name, text in lines.items():
        console.print(f"{name} {text}", highlight=False, soft_wrap=True)
    return OK


def _table(study: "Study", outcomes: dict[int, Outcome], order: Sequence[int]) -> Table:
    """Return the table of the trials, the best first, unfinished ones last."""
    fields = list(study.trials[0].values)
    table = Table(
        "trial", *fields, study.options.metric, "steps", "seconds", "state",
        title=f"Trials of {study.options.model}", title_justify="left",
    )  # fmt: skip
    unfinished = [trial.number for trial in study.trials if trial.number not in order]
    for number in [*order, *unfinished]:
        outcome, values = outcomes[number], study.trials[number - 1].values
        value = outcome.value(study.options.metric)
        table.add_row(
            str(number), *(str(values[field]) for field in fields),
            "" if value is None else f"{value:.4f}", str(outcome.steps),
            f"{outcome.seconds:.0f}", outcome.state,
        )  # fmt: skip
    return table
