"""Benchmarks: ratios of our way and the usual one, measured in one run on this machine.

    python jobs/bench.py rewards [--only tlt_closed] [--json FILE] [--device cuda]
    python jobs/bench.py search [--only args30] [--position closed] [--json FILE] [--device cuda]
    python jobs/bench.py pools [--json FILE]
    python jobs/bench.py threads [--json FILE]

A table, then one line of JSON. Timings differ from machine to machine; the ratios are what counts.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any working directory

import typer

from jobs.steps.quiet import quieten

quieten()

from jobs.steps.arguments import named  # noqa: E402
from jobs.steps.bench.pipeline import PIPELINE  # noqa: E402
from jobs.steps.bench.pools import COUNTS, MEMORY_AT, bench_pools  # noqa: E402
from jobs.steps.bench.rewards import NAMES, OPTIONAL, bench_rewards  # noqa: E402
from jobs.steps.bench.search import bench_search  # noqa: E402
from jobs.steps.bench.search_setting import CASES as SEARCHES  # noqa: E402
from jobs.steps.bench.setting import SETTINGS  # noqa: E402
from jobs.steps.bench.threads import bench_threads  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def main() -> None:
    """One command a subject."""


@app.command()
def rewards(
    context: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help=f"one of {', '.join(NAMES)}; may be repeated; with an extra of vLLM also"
            f" {', '.join(OPTIONAL)}"
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="also write the results here")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="timed runs; their median counts")] = 3,
    rows: Annotated[int, typer.Option(min=1_000, help="of the pipeline, in all")] = 20_000,
    device: Annotated[str, typer.Option(help="cuda takes a model of 1.2B parameters")] = "cpu",
) -> None:
    """Prefix scoring against separate forwards, full-TLT training against an ORM epoch, scoring."""
    if device not in SETTINGS:
        raise typer.BadParameter(f"{device}; valid: {', '.join(SETTINGS)}", param_hint="--device")
    for name in only or []:
        if name not in NAMES + OPTIONAL:
            valid = ", ".join(NAMES + OPTIONAL)
            raise typer.BadParameter(f"{name}; valid: {valid}", param_hint="--only")
    cases = only or list(NAMES)
    for option, reads in {
        "rows": PIPELINE in cases, "repeats": any(name != PIPELINE for name in cases),
    }.items():  # fmt: skip
        if option in named(context) and not reads:
            raise typer.BadParameter("no case of --only reads it", param_hint=f"--{option}")
    try:
        bench_rewards(cases, repeats, rows, SETTINGS[device], json)
    except ModuleNotFoundError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def search(
    only: Annotated[
        list[str] | None, typer.Option(help=f"one of {', '.join(SEARCHES)}; may be repeated")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="also write the results here")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="timed runs; their median counts")] = 3,
    prompts: Annotated[int, typer.Option(min=1, help="at once")] = 32,
    position: Annotated[Literal["open", "closed"], typer.Option(help="of scoring")] = "open",
    device: Annotated[str, typer.Option(help="cuda takes models of 1.2B parameters")] = "cpu",
) -> None:
    """Every search method against a straightforward loop and against the bare engines."""
    if device not in SETTINGS:
        raise typer.BadParameter(f"{device}; valid: {', '.join(SETTINGS)}", param_hint="--device")
    for name in only or []:
        if name not in SEARCHES:
            raise typer.BadParameter(f"{name}; valid: {', '.join(SEARCHES)}", param_hint="--only")
    bench_search(only or list(SEARCHES), repeats, prompts, position, SETTINGS[device], json)


@app.command()
def pools(
    actors: Annotated[
        list[int] | None, typer.Option(min=1, help="how many; may be repeated")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="also write the results here")] = None,
    prompts: Annotated[int, typer.Option(min=0, help="streamed for the driver's memory")] = (
        MEMORY_AT[-1]
    ),
) -> None:
    """Search actors on stand-in engines: throughput by their number, memory of the driver."""
    bench_pools(actors or COUNTS, prompts, json)


@app.command()
def threads(
    count: Annotated[list[int] | None, typer.Option(min=1, help="of torch; repeatable")] = None,
    json: Annotated[Path | None, typer.Option(help="also write the results here")] = None,
) -> None:
    """Threads that sleep while they wait against threads that spin, alone and beside other work."""
    bench_threads(count or [1, 2], json)


if __name__ == "__main__":
    app()
