"""Answer a file of prompts with your own policy, guided by your own reward model.

    python jobs/decode.py --policy P --reward R --method cbs --prompts F --out F beams=4 chunk=16

Give the same command again to resume an interrupted run. See docs/decoding.md.
"""

from importlib import import_module
from typing import Annotated as An

import typer
from typer import Option as Opt

from jobs.command_line.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.command_line import reward_arguments as reward_model  # noqa: E402
from jobs.command_line.arguments import named  # noqa: E402
from jobs.command_line.first_checks import first, first_of_decode  # noqa: E402
from jobs.command_line.method_fields import MethodCommand  # noqa: E402
from jobs.command_line.reward_arguments import CORES  # noqa: E402
from orchestrator.choices import Dtype, EngineChoice, Finished  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__, cls=MethodCommand)
def main(
    context: typer.Context,
    policy: An[str, Opt(help="checkpoint folder or hub name of the policy")],
    method: An[str, Opt(help="the search method")],
    prompts: An[str, Opt(help="file of prompts: .jsonl, .jsonl.gz, .parquet, .txt")],
    out: An[str, Opt(help="output folder, or .parquet or .jsonl file")],
    fields: An[
        list[str] | None, typer.Argument(help="the method's fields: beams=4 chunk=16")
    ] = None,
    reward: An[str | None, Opt(help="checkpoint folder or hub name of the reward model")] = None,
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
    finished: An[Finished, Opt(help="where a finished response is scored")] = "template",
    position: reward_model.Position = "closed",
    max_new_tokens: An[int, Opt(min=1, help="length limit of a response")] = 256,
    temperature: An[float, Opt(help="sampling temperature of the policy")] = 1.0,
    top_p: An[float, Opt(help="nucleus of the policy's sampling")] = 1.0,
    seed: An[int, Opt(help="seed of all random numbers")] = 0,
    actors: An[int, Opt(min=1, help="search processes, each with both models")] = 1,
    threads: reward_model.Threads = None,
    max_actors: An[
        int | None, Opt(min=1, help="limit of actors started while prompts wait")
    ] = None,
    policy_cache_mib: An[int | None, Opt(min=1, help="KV cache of an actor's policy")] = None,
    reward_cache_mib: An[int | None, Opt(min=1, help="KV cache of its reward model")] = None,
    max_concurrent: An[int, Opt(min=1, help="prompts that an actor searches at once")] = 32,
    part_rows: An[int, Opt(min=1, help="rows of an output shard, the unit of resuming")] = 256,
    dtype: An[Dtype, Opt(help="dtype of the weights")] = "float32",
    engine: An[EngineChoice, Opt(help="auto: the one measured faster")] = "auto",
    device: reward_model.Device = "cpu",
    force: An[bool, Opt("--force", help="overwrite responses of other options")] = False,
) -> None:
    """Parses, and hands over; what is imported late is not waited for by --help."""
    processes = max(actors, max_actors or 1)
    given = {**locals(), "threads": threads or max(CORES // processes, 1), "fields": fields or []}
    given["format"] = format or []
    del given["processes"], given["context"]
    given["named"] = named(context)
    first(first_of_decode, given)
    raise typer.Exit(import_module("jobs.batch.decode").decode_main(**given))


if __name__ == "__main__":
    app()
