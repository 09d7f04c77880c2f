"""Benchmarks: ratios between this project and the usual way, measured in one run.

    python jobs/bench.py rewards [--only tlt_closed] [--json FILE] [--device cuda]
    python jobs/bench.py search --model smollm2 [--only steps] [--json FILE]
    python jobs/bench.py search [--only args30] [--position closed] [--json FILE] [--device cuda]
    python jobs/bench.py pools [--json FILE]
    python jobs/bench.py threads [--json FILE]

Prints a table and one line of JSON. Timings differ between machines; compare the ratios.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.command_line.quiet import quieten

quieten(__file__)  # what measures is imported once the options are known to be good

from jobs.benchmarks.names import (  # noqa: E402
    DEVICES,
    MEMORY_AT,
    OPTIONAL,
    PIPELINE,
    POOLS,
    REWARDS,
    SEARCHES,
    SMALL_SEARCHES,
)
from jobs.command_line.arguments import named, usage  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=usage(__doc__))


@app.callback()
def main() -> None:
    """One command a subject."""


@app.command()
def rewards(
    context: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help=f"one of {', '.join(REWARDS)}; may be repeated; with an extra of vLLM also"
            f" {', '.join(OPTIONAL)}"
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="file for the results")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="timed runs, of which the median counts")] = 3,
    rows: Annotated[int, typer.Option(min=1_000, help="rows of the pipeline")] = 20_000,
    device: Annotated[
        str, typer.Option(help="cpu, or cuda with a model of 1.2B parameters")
    ] = "cpu",
) -> None:
    """Prefix scoring against separate forwards, full-TLT training against an ORM epoch, scoring."""
    _check_device(device)
    for name in only or []:
        if name not in REWARDS + OPTIONAL:
            valid = ", ".join(REWARDS + OPTIONAL)
            raise typer.BadParameter(f"{name}; valid: {valid}", param_hint="--only")
    cases = only or list(REWARDS)
    for option, reads in {
        "rows": PIPELINE in cases, "repeats": any(name != PIPELINE for name in cases),
    }.items():  # fmt: skip
        if option in named(context) and not reads:
            raise typer.BadParameter("no case of --only reads it", param_hint=f"--{option}")
    from jobs.benchmarks.rewards import bench_rewards
    from jobs.benchmarks.setting import SETTINGS

    try:
        bench_rewards(cases, repeats, rows, SETTINGS[device], json)
    except ModuleNotFoundError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def search(
    context: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help=f"one of {', '.join(SEARCHES)}; with --model smollm2:"
            f" {', '.join(SMALL_SEARCHES)}; repeatable"
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="file for the results")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="timed runs, of which the median counts")] = 3,
    prompts: Annotated[int, typer.Option(min=1, help="prompts searched at once")] = 32,
    position: Annotated[
        Literal["open", "closed"], typer.Option(help="where prefixes are scored")
    ] = "open",
    device: Annotated[
        str, typer.Option(help="cpu, or cuda with models of 1.2B parameters")
    ] = "cpu",
    model: Annotated[
        Literal["random", "smollm2"],
        typer.Option(help="random models, or SmolLM2 of `bootstrap.py samples`"),
    ] = "random",
) -> None:
    """Every search method against a straightforward loop and against the bare engines."""
    if model == "smollm2":
        _small(context, only, repeats, json)
        return
    _check_device(device)
    for name in only or []:
        if name not in SEARCHES:
            raise typer.BadParameter(f"{name}; valid: {', '.join(SEARCHES)}", param_hint="--only")
    from jobs.benchmarks.search import bench_search
    from jobs.benchmarks.setting import SETTINGS

    bench_search(only or list(SEARCHES), repeats, prompts, position, SETTINGS[device], json)


def _small(context: typer.Context, only: list[str] | None, repeats: int, file: Path | None) -> None:
    for option in named(context) & {"prompts", "position", "device"}:
        raise typer.BadParameter("not with --model smollm2", param_hint=f"--{option}")
    for name in only or []:
        if name not in SMALL_SEARCHES:
            valid = ", ".join(SMALL_SEARCHES)
            raise typer.BadParameter(f"{name}; valid: {valid}", param_hint="--only")
    from jobs.benchmarks.small import bench_small
    from orchestrator.checkpoints.sample_models import SampleNotInstalled

    try:
        bench_small(only or list(SMALL_SEARCHES), repeats, file)
    except SampleNotInstalled as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error


@app.command()
def pools(
    actors: Annotated[
        list[int] | None, typer.Option(min=1, help="number of actors; repeatable")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="file for the results")] = None,
    prompts: Annotated[
        int, typer.Option(min=0, help="prompts streamed to measure the driver's memory")
    ] = (MEMORY_AT[-1]),
) -> None:
    """Search actors on stand-in engines: throughput by their number, memory of the driver."""
    from jobs.benchmarks.pools import bench_pools

    bench_pools(actors or POOLS, prompts, json)


def _check_device(device: str) -> None:
    if device not in DEVICES:
        raise typer.BadParameter(f"{device}; valid: {', '.join(DEVICES)}", param_hint="--device")


@app.command()
def threads(
    count: Annotated[
        list[int] | None, typer.Option(min=1, help="torch threads; repeatable")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="file for the results")] = None,
) -> None:
    """Threads that sleep while they wait against threads that spin, alone and beside other work."""
    from jobs.benchmarks.threads import bench_threads

    bench_threads(count or [1, 2], json)


if __name__ == "__main__":
    app()
