"""Scores prefixes of a file's responses with any reward model, as a stream through Ray Data.

    python jobs/score.py --input rows.jsonl --output scored --reward CHECKPOINT --prefixes 5,10,20

Rows are {prompt, response}, pairs {prompt, chosen, rejected}, or in another form of docs/data.md.
Those that cannot be scored go to the rejects; run again, it computes what is missing.
docs/scorers.md
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated as An
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any working directory

import typer
from typer import Option as Opt

from jobs.steps.quiet import quieten

quieten()  # before any library that reads its settings at import

from jobs.steps.arguments import named  # noqa: E402
from jobs.steps.first_checks import first, first_of_score  # noqa: E402

CORES = os.cpu_count() or 1
Kinds = Literal["sequence", "encoder", "step_tag", "log_ratio"]
Ways = Literal["last", "min", "mean", "sum", "product"]
Engines = Literal["transformers", "vllm"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    context: typer.Context,
    input: An[str, Opt(help="JSON lines (.jsonl, .json, also .gz) or .parquet: a file or URI")],
    output: An[str, Opt(help="a folder, or a file that ends with .parquet")],
    reward: An[str, Opt(help="the reward model: a checkpoint folder or hub name")],
    kind: An[Kinds | None, Opt(help="default: what its files tell")] = None,
    base: An[str | None, Opt(help="of a log ratio: its denominator")] = None,
    beta: An[float | None, Opt(help="of a log ratio: its factor; default 1")] = None,
    position: An[Literal["closed", "open"], Opt(help="where a prefix is scored")] = "closed",
    prefixes: An[str, Opt(help="whole, tlt, sst[:K], steps, every:N, or lengths t1,t2")] = "whole",
    aggregation: An[Ways | None, Opt(help="of step rewards; default: the kind's own")] = None,
    step_delimiter: An[str | None, Opt(help=r"text that ends a step; \n is a line end")] = None,
    step_tag: An[str | None, Opt(help="where a step's reward is read")] = None,
    score_label: An[
        int | None, Opt(min=0, help="of a head of several labels: the index of the score")
    ] = None,
    preset: An[str | None, Opt(help="a family of public models: docs/public_models.md")] = None,
    format: An[
        list[str] | None, Opt(help="a field of the step format, name=value; repeatable")
    ] = None,
    score_at: An[str | None, Opt(help="token of the template's closing: text, or index -2")] = None,
    score_token: An[int | None, Opt(min=0, help="id of the token whose logit is the score")] = None,
    fold_system: An[bool, Opt(help="a refused system message: in the user's")] = True,
    branch_memory_mib: An[int, Opt(min=1, help="of a pass's closing suffixes")] = 256,
    engine: An[
        Engines, Opt(help="vllm (an extra): open scores of the kind sequence")
    ] = "transformers",
    seed: An[int, Opt(help="of the lengths that sst draws")] = 0,
    actors: An[int, Opt(min=1, help="processes that score, each with the model")] = min(CORES, 2),
    threads: An[int | None, Opt(min=1, help="torch threads of each; default: a share")] = None,
    batch_size: An[int, Opt(min=1, help="responses that a model is given at once")] = 32,
    part_rows: An[int, Opt(min=1, help="rows of a part, the unit of resuming")] = 256,
    device: An[Literal["cpu", "cuda"], Opt(help="cuda: a GPU for each actor")] = "cpu",
    force: An[bool, Opt("--force", help="score anew what was scored otherwise")] = False,
) -> None:
    """Parses, and hands over; what is imported late is not waited for by --help."""
    given = {
        **locals(),
        "threads": threads or max(CORES // actors, 1),
        "named": named(context),
        "format": format or [],
    }
    del given["context"]
    first(first_of_score, given)
    raise typer.Exit(import_module("jobs.steps.score").score_main(**given))


if __name__ == "__main__":
    app()
