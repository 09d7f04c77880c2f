"""The jobs from config to results: check the config, join Ray, run the plan, show the results.

The full plan is the main job, the plan of one model is `jobs/train.py`; `jobs/tune.py` uses the
functions of this module too.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from rich.console import Console

from jobs.command_line.console import job_console
from jobs.command_line.exit_codes import BAD_CONFIG, FAILED, INTERRUPTED, OK
from jobs.sweep.stage_names import stage_names
from orchestrator.config.checks import (
    check_checkpoints,
    check_engine,
    check_files,
    check_model,
    check_shares,
    reads_checkpoints,
)
from orchestrator.config.load import ConfigError, load_config, to_yaml
from orchestrator.config.no_effect import superseded
from orchestrator.config.output_paths import check_output
from orchestrator.config.sizes import check_sizes
from orchestrator.config.tree import Config
from orchestrator.masking import mask_secrets
from orchestrator.stages.output_folder import permanent_output_dir
from orchestrator.tracking.reachability import StoreNotOpened, check_answers

if TYPE_CHECKING:  # imported later, after the checks of the config
    from jobs.sweep.plan import Plan
    from jobs.sweep.runtime.workspace import Workspace
    from orchestrator.stages.store import Store
    from orchestrator.tracking.mlflow_tracker import Tracker


def sweep_main(
    config_file: Path | None, overrides: Sequence[str], dry_run: bool, force: Sequence[str]
) -> int:
    """Run the main job.

    Returns the exit code: 2 for a config that cannot run, 1 for a failed stage.
    """

    def sweep(console: Console) -> int:
        config = quickly_checked(config_file, overrides, starts=not dry_run)
        _check_forced(force, stage_names(config))
        check_model_files(config)
        return _run(config, None, dry_run, force, console)

    return exit_code_of(sweep)


def train_main(
    model: str,
    config_file: Path | None,
    overrides: Sequence[str],
    dry_run: bool,
    force: Sequence[str],
) -> int:
    """Train one model with the stages that it needs; returns the exit code, as the main job."""

    def train(console: Console) -> int:
        config = quickly_checked(config_file, overrides, starts=not dry_run)
        check_model(config, model)
        _check_forced(force, stage_names(config, model))
        check_model_files(config)
        return _run(config, model, dry_run, force, console)

    return exit_code_of(train)


def exit_code_of(work: Callable[[Console], int]) -> int:
    """Run ``work`` and return the exit code; a ConfigError is printed, with exit code 2."""
    console = job_console()
    try:
        return work(console)
    except ConfigError as error:
        Console(stderr=True).print(
            f"config error: {error}", style="red", markup=False, soft_wrap=True
        )
        return BAD_CONFIG


def checked(config_file: Path | None, overrides: Sequence[str], starts: bool = True) -> Config:
    """Return a config after all checks that are possible before anything starts.

    Raises:
        ConfigError: the message says what is wrong.
    """
    config = quickly_checked(config_file, overrides, starts)
    check_model_files(config)
    return config


def quickly_checked(config_file: Path | None, overrides: Sequence[str], starts: bool) -> Config:
    """Return a config after the checks that need neither torch nor the contents of checkpoints.

    ``starts`` is False for a dry run, which does not check the tracking server.

    Raises:
        ConfigError: the message says what is wrong.
    """
    config = load_config(config_file, overrides)
    check_files(config)
    check_output(config, Path.cwd())
    check_sizes(config, Path.cwd())
    check_engine(config)
    check_checkpoints(config)
    uri = config.tracking.uri
    if starts and uri is not None and not uri.startswith("sqlite:"):  # which the run makes
        with _tracking_errors(uri):
            check_answers(uri)
    return config


def check_model_files(config: Config) -> None:
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
    check_shares(config, [step.stage.name for step in plan.steps])
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
            f"output_dir = {store.remote or store.local}: another sweep is writing there;"
            " wait for it, or choose another"
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held
        lock.release()


def tracker_of(config: Config, store: "Store") -> "Tracker":
    """Return the MLflow store of a run.

    Raises:
        ConfigError: it cannot be opened.
    """
    from orchestrator.tracking.mlflow_tracker import Tracker

    uri = config.tracking.uri or f"sqlite:///{store.local}/mlflow.db"
    with _tracking_errors(uri):
        return Tracker(uri, config.tracking.experiment or config.data.task_name())


@contextmanager
def _tracking_errors(uri: str) -> Iterator[None]:
    """Convert the error of a store that cannot be opened to a ConfigError."""
    try:
        yield
    except StoreNotOpened as error:
        valid = "valid: a server, database or folder of MLflow's that answers, or null"
        raise ConfigError(f"tracking.uri = {mask_secrets(uri)}: {error}; {valid}") from error


def run_tracked(
    tracker: "Tracker",
    key: str,
    name: str,
    params: Mapping[str, object],
    workspace: "Workspace",
    work: Callable[[str], int],
) -> int:
    """Do ``work`` with the id of a new parent run; end the run with its status.

    Closes the workspace's resources in every case.
    """
    from jobs.sweep.runner import StageFailed

    config, console = workspace.config, workspace.console
    shared = {"task": config.data.task_name(), "seed": config.seed}
    parent = tracker.start_sweep(key, name, {**shared, **params}, to_yaml(config))
    try:
        code = work(parent)
    except KeyboardInterrupt:
        tracker.finish(parent, "KILLED")
        console.print("interrupted: run the same command again to resume")
        return INTERRUPTED
    except StageFailed as error:
        tracker.finish(parent, "FAILED")
        console.print(f"failed: {error}", style="red", markup=False, soft_wrap=True)
        console.print("finished stages are kept: fix the cause and run the same command again")
        console.print_exception(max_frames=20)
        return FAILED
    finally:
        workspace.resources.close()
    tracker.finish(parent, "FINISHED" if code == OK else "FAILED")
    return code


def key_of(parts: Sequence[str]) -> str:
    """Return the key of a job: jobs with the same stages share a parent run."""
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def _run(
    config: Config, model: str | None, dry_run: bool, force: Sequence[str], console: Console
) -> int:
    plan, lines = make_plan(config, model)
    _check_forced(force, [step.stage.name for step in plan.steps])
    console.print(lines, highlight=False, markup=False)
    for reason, fields in superseded(config).items():
        line = f"not used: {', '.join(fields)} ({reason})"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
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
    tracker = tracker_of(config, plan.store)
    if not all(plan.store.done(step.stage) for step in plan.steps):
        cluster.join(config, console)
    key = key_of([step.stage.key for step in plan.steps])

    def work(parent: str) -> int:
        runner = Runner(plan, workspace, tracker, parent)
        runner.run()
        if plan.model is None:
            report(plan, runner, tracker, parent, key, console)
        else:
            show_model(plan, plan.model, workspace, tracker, parent)
        return OK

    name = config.name if plan.model is None else f"{config.name} {plan.model}"
    return run_tracked(tracker, key, name, {}, workspace, work)
