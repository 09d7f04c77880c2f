"""Run jobs/decode.py: check the options, then answer the prompts that have no response yet."""

import asyncio
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ray.actor import ActorHandle
from rich.console import Console

from actors.search import SearchActor
from actors.search_stream import Growth, stream
from jobs.batch.cluster_capacity import ACTOR_CPUS, connect
from jobs.batch.decode_arguments import DecodeArguments
from jobs.batch.decode_options import DecodeOptions
from jobs.batch.decode_output import DecodeOutput, DecodeSummary
from jobs.batch.decode_rows import RowWriter, find_shards, prompts
from jobs.batch.file_job import failed, file_job, locked, print_error
from jobs.command_line.exit_codes import FAILED, OK
from orchestrator.config.engine_choice import engine_notice
from orchestrator.config.load import ConfigError
from orchestrator.conversations.chat import load_chat
from orchestrator.data.shards import ShardedFile
from orchestrator.decoding.prompts import PromptReader
from orchestrator.scorers.scored_token import end_tokens
from orchestrator.search.problem import PromptFailed
from orchestrator.stages.progress import ProgressBar


def decode_main(arguments: DecodeArguments) -> int:
    """Answer a file of prompts; return the exit code: 2 for a wrong option, 1 for a failure."""
    options = DecodeOptions(**vars(arguments))

    def run(path: Path, console: Console) -> int:
        resolved = options.resolved()
        reader, output = resolved.prompt_reader(), DecodeOutput(path)
        with locked(output.folder, output.OPTION, path):
            return _Decoding(resolved, reader, output, console).run()

    return file_job("decode", DecodeOutput.OPTION, options.out, DecodeOutput.SUFFIXES, run)


@dataclass(frozen=True)
class _Decoding:
    options: DecodeOptions
    reader: PromptReader
    output: DecodeOutput
    console: Console

    def run(self) -> int:
        """Decode unless the output is finished; return the exit code."""
        identity = self.options.identity()
        summary = self.output.begin(identity, self.options.force)
        if summary is not None:
            self._print("finished before:")
            self._print_summary(summary)
            return OK
        try:
            file = find_shards(self.options.prompts, self.reader, self.output)
        except ConfigError:
            self.output.discard_if_empty()
            raise
        started = time.monotonic()
        if (code := self._answer_missing(file, identity.get("scored_token"))) != OK:
            return code
        if missing := file.rows - self.output.count_rows():
            print_error(
                f"failed: {missing:,} prompts have neither a response nor a reject; run the same"
                " command again"
            )
            return FAILED
        self._print_summary(self.output.finish(identity, time.monotonic() - started))
        return OK

    def _answer_missing(self, file: ShardedFile, scored_token: object) -> int:
        """Answer the prompts that are neither answered nor rejected; return the exit code."""
        options, finished = self.options, self.output.finished_rows()
        if finished:
            self._print(f"{len(finished):,} of {file.rows:,} prompts are done")
        chat = load_chat(options.policy)
        writer = RowWriter(self.output, options.prompts, chat, options.sizes(), options.shard_rows)
        self._print(
            f"end tokens of the policy: {end_tokens(chat)}; temperature {options.temperature},"
            f" top-p {options.top_p} (only the end tokens are read from its generation_config.json)"
        )
        if options.spec is not None:
            self._print(f"scored token: {scored_token}")
        if choice := engine_notice(options.engine, options.device):
            self._print(choice)
        actors = self._start_actors()
        try:
            with ProgressBar(self.console, "decode", file.rows, "prompts") as progress:
                asyncio.run(self._stream(file, actors, finished, writer, progress))
        except Exception as error:
            return failed(error)
        finally:
            writer.flush()
        writer.close()
        return OK

    async def _stream(
        self,
        file: ShardedFile,
        actors: Sequence[ActorHandle],
        finished: Collection[int],
        writer: RowWriter,
        progress: ProgressBar,
    ) -> None:
        """Stream the missing prompts through the actors, and write their responses."""
        options, growth = self.options, None
        if options.max_actors is not None:
            growth = Growth(partial(_start_actor, options), options.max_actors)
        started, tokens = time.monotonic(), 0
        progress.update(len(finished))
        rows = prompts(file, self.reader, finished, writer)
        outcomes = stream(actors, options.search, rows, notify=self.console.print, growth=growth)
        async for row, outcome in outcomes:
            if isinstance(outcome, PromptFailed):
                writer.fail(row, str(outcome))
            else:
                writer.answer(row, outcome)
                tokens += outcome.cost.policy_tokens_computed
            rate = tokens / max(time.monotonic() - started, 1e-9)
            progress.update(len(finished) + writer.rows, note=f"{rate:,.0f} policy tokens/s")

    def _start_actors(self) -> list[ActorHandle]:
        """Start the search actors; their engines load while prompts are read.

        Raises:
            ConfigError: the cluster has too few CPUs or GPUs for them.
        """
        connect(self.options, self.console, _cpus(self.options))
        return [_start_actor(self.options) for _ in range(self.options.actors)]

    def _print_summary(self, summary: DecodeSummary) -> None:
        """Print the summary as a sentence and as one line of JSON."""
        rejected = sum(summary["reasons"].values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary["reasons"].items())
        details = f" ({reasons}); rejects: {self.output.rejects}" if rejected else ""
        self.console.print(
            f"{summary['answered']:,} prompts answered; responses: {self.output.results};"
            f" {rejected:,} rejected{details}",
            highlight=False,
            soft_wrap=True,
        )
        print(json.dumps(summary))

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False)


def _start_actor(options: DecodeOptions) -> ActorHandle:
    actor = SearchActor.options(  # type: ignore[attr-defined]
        num_cpus=_cpus(options), num_gpus=int(options.device == "cuda")
    )
    return actor.remote(options.engines)


def _cpus(options: DecodeOptions) -> float:
    """Return the CPUs of an actor; those of a growing pool reserve the cores that they use."""
    return ACTOR_CPUS if options.max_actors is None else options.threads_per_actor
