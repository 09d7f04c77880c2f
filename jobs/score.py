"""Score prefixes of a file's responses with any reward model, streamed through Ray Data.

    python jobs/score.py --input rows.jsonl --output scored --reward CHECKPOINT --prefixes 5,10,20

Rows are {prompt, response}, {prompt, chosen, rejected} or another form of docs/data.md. Rows that
cannot be scored go to the rejects. Give the same command again to resume an interrupted run.
See docs/scorers.md.
"""

from importlib import import_module
from typing import Annotated as An

import typer
from typer import Option as Opt

from jobs.command_line.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.command_line import reward_arguments as reward_model  # noqa: E402
from jobs.command_line.arguments import named  # noqa: E402
from jobs.command_line.first_checks import first, first_of_score  # noqa: E402
from jobs.command_line.reward_arguments import CORES  # noqa: E402
from orchestrator.choices import Engine  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    context: typer.Context,
    input: An[str, Opt(help="file or URI: .jsonl, .json (also .gz) or .parquet")],
    output: An[str, Opt(help="output folder, or .parquet file")],
    reward: An[str, Opt(help="checkpoint folder or hub name of the reward model")],
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
    branch_memory_mib: An[int, Opt(min=1, help="memory limit of the branches of a pass")] = 256,
    engine: An[Engine, Opt(help="vllm: open scores of kind sequence only")] = "transformers",
    seed: An[int, Opt(help="seed of the lengths that sst draws")] = 0,
    actors: An[int, Opt(min=1, help="scoring processes, each with the model")] = min(CORES, 2),
    threads: reward_model.Threads = None,
    batch_size: An[int, Opt(min=1, help="responses of a batch")] = 32,
    part_rows: An[int, Opt(min=1, help="rows of an output shard, the unit of resuming")] = 256,
    device: reward_model.Device = "cpu",
    force: An[bool, Opt("--force", help="overwrite scores of other options")] = False,
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
    raise typer.Exit(import_module("jobs.batch.score").score_main(**given))


if __name__ == "__main__":
    app()
