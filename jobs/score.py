"""Scores prefixes of a file's responses with any reward model, as a stream through Ray Data.

    python jobs/score.py --input rows.jsonl --output scored --reward CHECKPOINT --prefixes 5,10,20

Rows are {prompt, response}, pairs {prompt, chosen, rejected}, or in another form of docs/data.md.
Those that cannot be scored go to the rejects; run again, it computes what is missing.
docs/scorers.md
"""

from importlib import import_module
from typing import Annotated as An
from typing import Literal

import typer
from typer import Option as Opt

from jobs.steps.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.steps import reward_arguments as reward_model  # noqa: E402
from jobs.steps.arguments import named  # noqa: E402
from jobs.steps.first_checks import first, first_of_score  # noqa: E402
from jobs.steps.reward_arguments import CORES  # noqa: E402

Engines = Literal["transformers", "vllm"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    context: typer.Context,
    input: An[str, Opt(help="JSON lines (.jsonl, .json, also .gz) or .parquet: a file or URI")],
    output: An[str, Opt(help="a folder, or a file that ends with .parquet")],
    reward: An[str, Opt(help="the reward model: a checkpoint folder or hub name")],
    kind: reward_model.Kind = None,
    base: reward_model.Base = None,
    beta: reward_model.Beta = None,
    position: reward_model.Position = "closed",
    prefixes: An[str, Opt(help="whole, tlt, sst[:K], steps, every:N, or lengths t1,t2")] = "whole",
    aggregation: reward_model.Aggregation = None,
    step_delimiter: reward_model.StepDelimiter = None,
    step_tag: reward_model.StepTag = None,
    score_label: reward_model.ScoreLabel = None,
    preset: reward_model.Preset = None,
    format: reward_model.StepFormat = None,
    score_at: reward_model.ScoreAt = None,
    score_token: reward_model.ScoreToken = None,
    fold_system: reward_model.FoldSystem = True,
    branch_memory_mib: An[int, Opt(min=1, help="of a pass's closing suffixes")] = 256,
    engine: An[
        Engines, Opt(help="vllm (an extra): open scores of the kind sequence")
    ] = "transformers",
    seed: An[int, Opt(help="of the lengths that sst draws")] = 0,
    actors: An[int, Opt(min=1, help="processes that score, each with the model")] = min(CORES, 2),
    threads: reward_model.Threads = None,
    batch_size: An[int, Opt(min=1, help="responses that a model is given at once")] = 32,
    part_rows: An[int, Opt(min=1, help="rows of a part, the unit of resuming")] = 256,
    device: reward_model.Device = "cpu",
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
