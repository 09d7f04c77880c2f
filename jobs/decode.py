"""Answers a file of prompts with your own policy, guided by your own reward model.

    python jobs/decode.py --policy P --reward R --method cbs --prompts F --out F beams=4 chunk=16

A run that was ended goes on where the same command is given again. docs/decoding.md
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
from jobs.steps.first_checks import first, first_of_decode  # noqa: E402
from jobs.steps.method_fields import MethodCommand  # noqa: E402
from jobs.steps.reward_arguments import CORES  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__, cls=MethodCommand)
def main(
    context: typer.Context,
    policy: An[str, Opt(help="the model that writes: a checkpoint folder or hub name")],
    method: An[str, Opt(help="the search method")],
    prompts: An[str, Opt(help=".jsonl, .jsonl.gz, .parquet with `prompt`; .txt, one a line")],
    out: An[str, Opt(help="a folder, or a file that ends with .parquet or .jsonl")],
    fields: An[list[str] | None, typer.Argument(help="of the method: beams=4 chunk=16")] = None,
    reward: An[str | None, Opt(help="the reward model; base and greedy need none")] = None,
    kind: reward_model.Kind = None,
    base: reward_model.Base = None,
    beta: reward_model.Beta = None,
    aggregation: reward_model.Aggregation = None,
    step_delimiter: reward_model.StepDelimiter = None,
    step_tag: reward_model.StepTag = None,
    score_label: reward_model.ScoreLabel = None,
    preset: reward_model.Preset = None,
    format: reward_model.StepFormat = None,
    score_at: reward_model.ScoreAt = None,
    score_token: reward_model.ScoreToken = None,
    fold_system: reward_model.FoldSystem = True,
    finished: An[
        Literal["template", "position"], Opt(help="a finished response: closed, or as --position")
    ] = "template",
    position: reward_model.Position = "closed",
    max_new_tokens: An[int, Opt(min=1, help="of a response")] = 256,
    temperature: An[float, Opt(help="of the policy")] = 1.0,
    top_p: An[float, Opt(help="of the policy")] = 1.0,
    seed: An[int, Opt(help="with a prompt's id it decides all draws")] = 0,
    actors: An[int, Opt(min=1, help="processes that search, each with both models")] = 1,
    threads: reward_model.Threads = None,
    max_actors: An[
        int | None, Opt(min=1, help="to start while prompts wait; default: none")
    ] = None,
    policy_cache_mib: An[int | None, Opt(min=1, help="of keys and values, in an actor")] = None,
    reward_cache_mib: An[int | None, Opt(min=1, help="of keys and values, in an actor")] = None,
    max_concurrent: An[int, Opt(min=1, help="prompts that an actor searches at once")] = 32,
    part_rows: An[int, Opt(min=1, help="rows of a part, the unit of writing")] = 256,
    dtype: An[Literal["float32", "float64", "bfloat16"], Opt(help="of weights")] = "float32",
    engine: An[Literal["auto", "transformers", "vllm"], Opt(help="auto: the faster")] = "auto",
    device: reward_model.Device = "cpu",
    force: An[bool, Opt("--force", help="answer anew what was answered otherwise")] = False,
) -> None:
    """Parses, and hands over; what is imported late is not waited for by --help."""
    processes = max(actors, max_actors or 1)
    given = {**locals(), "threads": threads or max(CORES // processes, 1), "fields": fields or []}
    given["format"] = format or []
    del given["processes"], given["context"]
    given["named"] = named(context)
    first(first_of_decode, given)
    raise typer.Exit(import_module("jobs.steps.decode").decode_main(**given))


if __name__ == "__main__":
    app()
