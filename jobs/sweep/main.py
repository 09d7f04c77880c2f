"""The jobs from config to results: check the config, join Ray, run the plan, show the results.

The full plan is the main job, the plan of one model is `jobs/train.py`; `jobs/tune.py` uses the
functions of this module too.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from rich.console import Console

from jobs.command_line.console import job_console
from jobs.command_line.exit_codes import BAD_CONFIG, OK
from jobs.sweep.stage_names import stage_names
from jobs.sweep.tracking import parent_run_key, run_tracked, tracker_of, tracking_errors
from orchestrator.config.checks import (
    check_checkpoints_exist,
    check_engine,
    check_files,
    check_model_name,
    check_splits_not_empty,
    reads_checkpoints,
)
from orchestrator.config.load import ConfigError, load_config
from orchestrator.config.no_effect import superseded
from orchestrator.config.output_paths import check_output
from orchestrator.config.sizes import check_sizes
from orchestrator.config.tree import Config
from orchestrator.stages.output_folder import permanent_output_dir
from orchestrator.tracking.location import location_of, sqlite_file
from orchestrator.tracking.reachability import check_reachable

if TYPE_CHECKING:  # imported later, after the checks of the config
    from jobs.sweep.plan import Plan
    from orchestrator.stages.store import Store
    from orchestrator.tracking.mlflow_tracker import RunRef


def sweep_main(
    config_file: Path | None, overrides: Sequence[str], dry_run: bool, force: Sequence[str]
) -> int:
    """Run the main job.

    Returns the exit code: 2 for a config that cannot run, 1 for a failed stage. A
    KeyboardInterrupt is raised again when all is closed.
    """

    def sweep(console: Console) -> int:
        config = load_config_without_model_checks(
            config_file, overrides, check_tracking=not dry_run
        )
        _check_forced(force, stage_names(config))
        check_checkpoint_kinds(config)
        return _run(config, None, dry_run, force, console)

    return run_and_catch_config_errors(sweep)


def train_main(
    model: str,
    config_file: Path | None,
    overrides: Sequence[str],
    dry_run: bool,
    force: Sequence[str],
) -> int:
    """Train one model with the stages that it needs; returns the exit code, as the main job."""

    def train(console: Console) -> int:
        config = load_config_without_model_checks(
            config_file, overrides, check_tracking=not dry_run
        )
        check_model_name(config, model)
        _check_forced(force, stage_names(config, model))
        check_checkpoint_kinds(config)
        return _run(config, model, dry_run, force, console)

    return run_and_catch_config_errors(train)


def run_and_catch_config_errors(work: Callable[[Console], int]) -> int:
    """Run ``work`` and return the exit code; a ConfigError is printed, with exit code 2."""
    console = job_console()
    try:
        return work(console)
    except ConfigError as error:
        job_console(stderr=True).print(f"config error: {error}", style="red", soft_wrap=True)
        return BAD_CONFIG


def load_and_check_config(
    config_file: Path | None, overrides: Sequence[str], check_tracking: bool = True
) -> Config:
    """Return a config after all checks that are possible before anything starts.

    Args:
        config_file: YAML file of the config; None is the embedded world's.
        overrides: overrides of the config.
        check_tracking: whether to check that the tracking server answers; a dry run does not.

    Raises:
        ConfigError: the message says what is wrong.
    """
    config = load_config_without_model_checks(config_file, overrides, check_tracking)
    check_checkpoint_kinds(config)
    return config


def load_config_without_model_checks(
    config_file: Path | None, overrides: Sequence[str], check_tracking: bool
) -> Config:
    """Return a config after the checks that need neither torch nor the contents of checkpoints.

    The arguments are those of ``load_and_check_config``.

    Raises:
        ConfigError: the message says what is wrong.
    """
    config = load_config(config_file, overrides)
    check_files(config)
    check_output(config, Path.cwd())
    check_sizes(config, Path.cwd())
    check_engine(config)
    check_checkpoints_exist(config)
    location = location_of(config.tracking.uri, Path.cwd())
    if check_tracking and sqlite_file(location.uri) is None:  # the run creates an SQLite file
        with tracking_errors(location):
            check_reachable(location.uri)
    return config


def check_checkpoint_kinds(config: Config) -> None:
    """Check the kinds of the user's checkpoints, and what the policy's tokenizer can write.

    Raises:
        ConfigError: a checkpoint is not of the kind that its field needs.
    """
    if reads_checkpoints(config):
        from orchestrator.config.models import check_models  # imports torch and transformers

        check_models(config)


def make_plan(config: Config, model: str | None) -> tuple["Plan", str]:
    """Return the plan of a config or of one of its models, and lines on its output and precision.

    Raises:
        ConfigError: a split that is trained on is empty.
    """
    from jobs.sweep.plan import Plan
    from orchestrator.stages.store import Store

    output_dir, moved = permanent_output_dir(config.output_dir, config.name, Path.cwd())
    plan = Plan(config, Store(output_dir), model)
    check_splits_not_empty(config, [step.stage.name for step in plan.steps])
    lines = [moved or f"output: {output_dir}", *([str(plan.precision)] if plan.precision else [])]
    return plan, "\n".join(lines)


@contextmanager
def locked_output(store: "Store") -> Iterator[None]:
    """Hold the store's lock.

    Raises:
        ConfigError: another process holds it, or the store cannot be written.
    """
    try:
        store.local.mkdir(parents=True, exist_ok=True)
        store.check_remote()
    except Exception as error:  # of any file system
        folder = store.remote or store.local
        reason = str(error) or type(error).__name__
        raise ConfigError(f"output_dir = {folder}: cannot be written: {reason}") from error
    file = store.local / ".lock"
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"output_dir = {store.remote or store.local}: another job is writing there;"
            " wait until it ends, or choose another output_dir"
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held
        lock.release()


def _run(
    config: Config, model: str | None, dry_run: bool, force: Sequence[str], console: Console
) -> int:
    plan, lines = make_plan(config, model)
    _check_forced(force, [step.stage.name for step in plan.steps])
    console.print(lines, highlight=False)
    for reason, fields in superseded(config).items():
        line = f"not used: {', '.join(fields)} ({reason})"
        console.print(line, highlight=False, soft_wrap=True)
    if dry_run:
        from jobs.sweep.runner import print_plan

        print_plan(plan, console, forced=[s.stage.name for n in force for s in plan.after(n)])
        return OK
    with locked_output(plan.store):
        for name in force:
            for step in plan.after(name):
                plan.store.invalidate(step.stage)
        return _run_plan(plan, console)


def _check_forced(force: Sequence[str], names: Sequence[str]) -> None:
    for name in force:
        if name not in names:
            raise ConfigError(f"--force {name}: no such stage; valid: {', '.join(names)}")


def _run_plan(plan: "Plan", console: Console) -> int:
    from jobs.sweep import cluster
    from jobs.sweep.report import report, show_model
    from jobs.sweep.runner import Runner

    config, workspace = plan.config, plan.workspace(console)
    tracker = tracker_of(config, plan.store, console)
    if not all(plan.store.done(step.stage) for step in plan.steps):
        cluster.join(config, console)
    key = parent_run_key([step.stage.key for step in plan.steps])

    def work(parent: "RunRef") -> int:
        runner = Runner(plan, workspace, tracker, parent)
        runner.run()
        if plan.model is None:
            report(plan, runner, tracker, parent, key, console)
        else:
            show_model(plan, plan.model, workspace, tracker, parent)
        return OK

    name = config.name if plan.model is None else f"{config.name} {plan.model}"
    return run_tracked(tracker, key, name, {}, workspace, work)
