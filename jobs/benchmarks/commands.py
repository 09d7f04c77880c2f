"""Define the command line of jobs/bench.py: options, their checks, and the help texts.

The commands import the measuring modules, so that `--help` and option errors appear at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated as An
from typing import Literal

import typer
from typer import Option as Opt

from jobs.benchmarks.names import (
    DEVICES,
    MEMORY_AT,
    OPTIONAL,
    PIPELINE,
    POOLS,
    REWARDS,
    SEARCHES,
    SMOLLM2_SEARCHES,
)
from jobs.command_line.arguments import set_by_user

Json = An[Path | None, Opt(help="file for the results")]
Repeats = An[int, Opt(min=1, help="number of timed runs; their median is reported")]
Device = An[str, Opt(help="cpu, or cuda with models of 1.2B parameters")]


def rewards(
    context: typer.Context,
    only: An[
        list[str] | None,
        Opt(
            help=f"run only this case; repeatable; cases: {', '.join(REWARDS)}; with an extra of"
            f" vLLM also {', '.join(OPTIONAL)}"
        ),
    ] = None,
    json: Json = None,
    repeats: Repeats = 3,
    rows: An[int, Opt(min=1_000, help="number of rows that the pipeline scores")] = 20_000,
    device: Device = "cpu",
) -> None:
    """Compare prefix scores, full-TLT training and the pipeline with their baselines."""
    _check_device(device)
    _check_cases(only, REWARDS + OPTIONAL)
    cases = only or list(REWARDS)
    for option, is_read in {
        "rows": PIPELINE in cases, "repeats": any(name != PIPELINE for name in cases),
    }.items():  # fmt: skip
        if option in set_by_user(context) and not is_read:
            reason = "has no effect with the cases of --only"
            raise typer.BadParameter(reason, param_hint=f"--{option}")
    from jobs.benchmarks.rewards import bench_rewards
    from jobs.benchmarks.setting import SETTINGS

    try:
        bench_rewards(cases, repeats, rows, SETTINGS[device], json)
    except ModuleNotFoundError as error:
        raise typer.BadParameter(str(error)) from error


def search(
    context: typer.Context,
    only: An[
        list[str] | None,
        Opt(
            help=f"run only this case; repeatable; cases: {', '.join(SEARCHES)}; with --model"
            f" smollm2: {', '.join(SMOLLM2_SEARCHES)}"
        ),
    ] = None,
    json: Json = None,
    repeats: Repeats = 3,
    prompts: An[int, Opt(min=1, help="number of prompts that are searched at once")] = 32,
    position: An[Literal["open", "closed"], Opt(help="closed or open scores of prefixes")] = "open",
    device: Device = "cpu",
    model: An[
        Literal["random", "smollm2"],
        Opt(help="random models, or SmolLM2 of `bootstrap.py samples`"),
    ] = "random",
) -> None:
    """Compare every search method with a plain loop and with the bare engines."""
    if model == "smollm2":
        _search_smollm2(context, only, repeats, json)
        return
    _check_device(device)
    _check_cases(only, SEARCHES)
    from jobs.benchmarks.search import bench_search
    from jobs.benchmarks.setting import SETTINGS

    bench_search(only or list(SEARCHES), repeats, prompts, position, SETTINGS[device], json)


def _search_smollm2(
    context: typer.Context, only: list[str] | None, repeats: int, file: Path | None
) -> None:
    for option in set_by_user(context) & {"prompts", "position", "device"}:
        raise typer.BadParameter("not with --model smollm2", param_hint=f"--{option}")
    _check_cases(only, SMOLLM2_SEARCHES)
    from jobs.benchmarks.smollm2 import bench_smollm2
    from orchestrator.checkpoints.sample_models import SampleNotInstalled

    try:
        bench_smollm2(only or list(SMOLLM2_SEARCHES), repeats, file)
    except SampleNotInstalled as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error


def pools(
    actors: An[list[int] | None, Opt(min=1, help="number of actors; repeatable")] = None,
    json: Json = None,
    prompts: An[
        int, Opt(min=0, help="number of prompts to measure the driver's memory with")
    ] = MEMORY_AT[-1],
) -> None:
    """Measure search actors with stand-in engines: throughput, and memory of the driver."""
    from jobs.benchmarks.pools import bench_pools

    bench_pools(actors or POOLS, prompts, json)


def threads(
    count: An[list[int] | None, Opt(min=1, help="number of torch threads; repeatable")] = None,
    json: Json = None,
) -> None:
    """Compare waiting threads that sleep with threads that spin, on an idle and a busy machine."""
    from jobs.benchmarks.threads import bench_threads

    bench_threads(count or [1, 2], json)


def _check_device(device: str) -> None:
    if device not in DEVICES:
        raise typer.BadParameter(f"{device}; valid: {', '.join(DEVICES)}", param_hint="--device")


def _check_cases(only: Sequence[str] | None, valid: Sequence[str]) -> None:
    for name in only or []:
        if name not in valid:
            raise typer.BadParameter(f"{name}; valid: {', '.join(valid)}", param_hint="--only")
