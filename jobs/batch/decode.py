"""jobs/decode.py from options to summary: check, then answer the prompts that are missing."""

import asyncio
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.batch.decode_options import DecodeOptions
from jobs.batch.decode_output import FILES, DecodeOutput
from jobs.batch.decode_rows import RowWriter, cut, prompts
from jobs.batch.file_job import alone, cause, file_job, say
from jobs.sweep.main import FAILED, OK
from orchestrator.config.load import ConfigError
from orchestrator.conversations.chat import load_chat
from orchestrator.data.shards import PartedFile
from orchestrator.decoding.engines import told
from orchestrator.decoding.prompts import PromptReader
from orchestrator.scorers.scored_token import end_tokens
from orchestrator.search.problem import PromptFailed
from orchestrator.stages.progress import Meter

ACTOR_CPUS = 0.1  # logical, as small as a sweep's, so that both find a place in one cluster


def decode_main(**given: Any) -> int:
    """Answers a file of prompts by the options of ``DecodeOptions``.

    The exit code is 2 for options that cannot be, 1 for a failure.
    """
    options = DecodeOptions(**given)

    def run(place: Path, console: Console) -> int:
        settled = options.resolved()
        reader, output = settled.reader(), DecodeOutput(place)
        with alone(output.folder, "--out", place):
            return _decode(settled, reader, output, console)

    return file_job("decode", "--out", options.out, FILES, run)


def _decode(
    options: DecodeOptions, reader: PromptReader, output: DecodeOutput, console: Console
) -> int:
    identity = options.identity()
    summary = output.begin(identity, options.force)
    if summary is not None:
        console.print("done before:", highlight=False)
        _show(summary, output, console)
        return OK
    try:
        file = cut(options.prompts, reader, output)
    except ConfigError:
        output.undo()
        raise
    done = output.done()
    if done:
        console.print(f"{len(done):,} of {file.rows:,} prompts are done", highlight=False)
    chat, sizes = load_chat(options.policy), options.sizes()
    writer = RowWriter(output, options.prompts, chat, sizes, options.part_rows)
    settings = f"temperature {options.temperature}, top-p {options.top_p}"
    console.print(
        f"the policy ends at {end_tokens(chat)}; {settings} (of its generation_config.json only the"
        " ends are read)",
        highlight=False, markup=False,
    )  # fmt: skip
    if options.spec is not None:
        console.print(f"scored at {identity['scored_token']}", highlight=False, markup=False)
    if choice := told(options.engine, options.device):
        console.print(choice, highlight=False)
    started = time.monotonic()
    actors = _actors(options, console)
    try:
        with Meter(console, "decode", file.rows, "prompts") as meter:
            asyncio.run(_answer(options, reader, file, actors, done, writer, meter, console))
    except Exception as error:
        say(f"failed: {cause(error)}")
        say("finished shards are kept: fix the cause and run the same command again")
        return FAILED
    finally:
        writer.flush()
    writer.close()
    missing = file.rows - output.rows()
    if missing:
        say(f"failed: {missing:,} prompts have neither a response nor a reject; run it again")
        return FAILED
    _show(output.finish(identity, time.monotonic() - started), output, console)
    return OK


async def _answer(
    options: DecodeOptions,
    reader: PromptReader,
    file: PartedFile,
    actors: Sequence[Any],
    done: set[int],
    writer: RowWriter,
    meter: Meter,
    console: Console,
) -> None:
    """Streams the prompts that are missing through the actors."""
    from actors.search_stream import Growth, stream

    growth = None
    if options.max_actors is not None:
        growth = Growth(partial(_actor, options), options.max_actors)
    started, tokens = time.monotonic(), 0
    meter.update(len(done))
    rows = prompts(file, reader, done, writer)
    found = stream(actors, options.search, rows, said=console.print, growth=growth)
    async for row, outcome in found:
        if isinstance(outcome, PromptFailed):
            writer.fail(row, str(outcome))
        else:
            writer.answer(row, outcome)
            tokens += outcome.cost.policy_tokens_computed
        rate = tokens / max(time.monotonic() - started, 1e-9)
        meter.update(len(done) + writer.seen, note=f"{rate:,.0f} policy tokens/s")


def _actors(options: DecodeOptions, console: Console) -> list[Any]:
    """Search actors, whose engines load while prompts are read; joins or starts Ray.

    Raises:
        ConfigError: it has no room for so many.
    """
    import ray

    from jobs.sweep import cluster

    cluster.connect(console, dashboard=False)
    resources = ray.cluster_resources()
    room = resources.get("CPU", 0) / _cpus(options)
    if options.device == "cuda":
        room = min(room, resources.get("GPU", 0))
    if options.actors > room:
        ray.shutdown()
        raise ConfigError(
            f"--actors = {options.actors}: the cluster has room for {int(room)} on"
            f" {options.device}; valid: at most that"
        )
    return [_actor(options) for _ in range(options.actors)]


def _actor(options: DecodeOptions) -> Any:
    from actors.search import SearchActor

    own = {"num_cpus": _cpus(options), "num_gpus": int(options.device == "cuda")}
    return SearchActor.options(**own).remote(options.engines)  # type: ignore[attr-defined]


def _cpus(options: DecodeOptions) -> float:
    """Of an actor: those of a pool that grows take what they use, for room decides when it does."""
    return ACTOR_CPUS if options.max_actors is None else options.threads


def _show(summary: dict[str, Any], output: DecodeOutput, console: Console) -> None:
    """A line for people, and one of JSON."""
    refused = sum(summary["reasons"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary["reasons"].items())
    where = f" ({reasons}); rejects: {output.rejects}" if refused else ""
    console.print(
        f"{summary['answered']:,} prompts answered; responses: {output.responses};"
        f" {refused:,} rejected{where}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    print(json.dumps(summary))
