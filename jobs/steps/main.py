"""The main job from config to report: check all of it, join Ray, run the plan, show results."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from orchestrator.config.checks import check_checkpoints, check_files
from orchestrator.config.load import ConfigError, load_config, to_yaml
from orchestrator.config.tree import Config
from orchestrator.masking import mask_secrets
from orchestrator.stages.places import lasting_output_dir

OK, FAILED, BAD_CONFIG, INTERRUPTED = 0, 1, 2, 130
LOG_WIDTH = 160  # columns where the output is no terminal


def sweep_main(
    config_file: Path | None, overrides: Sequence[str], dry_run: bool, force: Sequence[str]
) -> int:
    """Runs the main job; its exit code is 2 for a config that cannot run, 1 for a failed stage."""
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)
    try:
        config = load_config(config_file, overrides)
        check_files(config)
        check_checkpoints(config)
        _check_models(config)
        return _run(config, dry_run, force, console)
    except ConfigError as error:
        Console(stderr=True).print(
            f"config error: {error}", style="red", markup=False, soft_wrap=True
        )
        return BAD_CONFIG


def _check_models(config: Config) -> None:
    from orchestrator.config.models import check_models  # imports torch: after the quick checks

    check_models(config)


def _run(config: Config, dry_run: bool, force: Sequence[str], console: Console) -> int:
    output_dir, moved = lasting_output_dir(config.output_dir, config.name, Path.cwd())
    from jobs.steps.plan import Plan  # imports Ray and torch: after the config is known to be good
    from jobs.steps.run import print_plan, sweep_of

    plan = Plan(sweep_of(config, output_dir, console))
    names = [step.stage.name for step in plan.steps]
    for name in force:
        if name not in names:
            raise ConfigError(f"--force {name}: no such stage; valid: {', '.join(names)}")
    console.print(moved or f"output: {output_dir}", highlight=False, markup=False)
    if dry_run:
        print_plan(plan, console)
        return OK
    store = plan.sweep.store
    store.local.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(store.local / ".lock", timeout=0):
            for name in force:
                for step in plan.after(name):
                    store.forget(step.stage)
            return _go(plan, console)
    except Timeout:
        raise ConfigError(
            f"output_dir = {output_dir}: another sweep is writing there;"
            " wait for it, or choose another"
        ) from None


def _go(plan, console: Console) -> int:  # type: ignore[no-untyped-def]
    from jobs.steps import cluster
    from jobs.steps.report import report
    from jobs.steps.run import Runner, StageFailed
    from orchestrator.tracking.mlflow_tracker import StoreNotOpened, Tracker

    config, sweep = plan.sweep.config, plan.sweep
    uri = config.tracking.uri or f"sqlite:///{sweep.store.local}/mlflow.db"
    try:
        tracker = Tracker(uri, config.tracking.experiment or config.data.task)
    except StoreNotOpened as error:
        raise ConfigError(f"tracking.uri = {mask_secrets(uri)}: {error}") from error
    if not all(sweep.store.done(step.stage) for step in plan.steps):
        cluster.join(config, console)
    key = _sweep_key(plan)
    parent = tracker.start_sweep(
        key, config.name, {"task": config.data.task, "seed": config.seed}, to_yaml(config)
    )
    runner = Runner(plan, tracker, parent)
    try:
        runner.run()
        report(plan, runner, tracker, parent, key)
    except KeyboardInterrupt:
        tracker.finish(parent, "KILLED")
        console.print("interrupted: run the same command again, and it goes on from here")
        return INTERRUPTED
    except StageFailed as error:
        tracker.finish(parent, "FAILED")
        console.print(f"failed: {error}", style="red", markup=False, soft_wrap=True)
        console.print("what was done is kept: mend the cause and run the same command again")
        console.print_exception(max_frames=20)
        return FAILED
    finally:
        sweep.close()
    tracker.finish(parent, "FINISHED")
    return OK


def _sweep_key(plan) -> str:  # type: ignore[no-untyped-def]
    """A sweep is its stages: the same keys, the same sweep."""
    keys = "".join(step.stage.key for step in plan.steps)
    return hashlib.sha256(keys.encode()).hexdigest()[:16]
