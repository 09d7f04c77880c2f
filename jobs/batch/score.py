"""Run jobs/score.py: check the options, then score the shards that are not written yet."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from actors.prefix_scores import ShardCounts
from jobs.batch.cluster_capacity import connect
from jobs.batch.file_job import bad_file_as_config_error, failed, file_job, locked
from jobs.batch.score_arguments import ScoreArguments
from jobs.batch.score_options import ScoreOptions
from jobs.batch.score_output import ScoreOutput, ScoreSummary, Totals
from jobs.batch.score_pipeline import WRITERS, ScoringPipelineConfig, check_columns, run_shards
from jobs.command_line.exit_codes import OK
from orchestrator.config.load import ConfigError
from orchestrator.data.shards import ShardedFile, check_usable, split_into_shards
from orchestrator.scorers.row_reader import RowReader
from orchestrator.stages.progress import ProgressBar


def score_main(arguments: ScoreArguments) -> int:
    """Score a file; return the exit code: 2 for a wrong option, 1 for a failure."""
    options = ScoreOptions(**vars(arguments))

    def run(path: Path, console: Console) -> int:
        resolved = options.resolved()
        reader, output = resolved.row_reader(), ScoreOutput(path)
        with locked(output.folder, output.OPTION, path):
            return _ScoringJob(resolved, reader, output, console).run()

    return file_job("score", ScoreOutput.OPTION, options.output, ScoreOutput.SUFFIXES, run)


@dataclass(frozen=True)
class _ScoringJob:
    options: ScoreOptions
    reader: RowReader
    output: ScoreOutput
    console: Console

    def run(self) -> int:
        """Score unless the output is finished; return the exit code."""
        identity = self.options.identity()
        summary = self.output.begin(identity, self.options.force)
        if summary is not None:
            self._print(f"finished before: {self._format_summary(summary)}")
            return OK
        self._print(f"scored token: {identity['scored_token']}")
        try:
            file = find_shards(self.options, self.reader, self.output)
        except ConfigError:
            self.output.discard_if_empty()
            raise
        finished = {counts["shard"]: counts for counts in self.output.finished_shards()}
        if finished:
            self._print(f"{len(finished)} of {len(file.shards)} shards are done")
        started, (total, new) = time.monotonic(), _totals(finished.values())
        if len(finished) < len(file.shards):
            try:
                started = self._score_missing(file, set(finished), total, new)
            except ConfigError:
                raise
            except Exception as error:
                return failed(error)
        rate = new.read / max(time.monotonic() - started, 1e-9)
        summary = self.output.finish(identity, total)
        self._print(f"{self._format_summary(summary)}; {rate:,.1f} rows/s")
        return OK

    def _score_missing(
        self, file: ShardedFile, finished: set[int], total: Totals, new: Totals
    ) -> float:
        """Score the shards that are not finished; return the start time (``time.monotonic()``)."""
        options = self.options
        scoring = ScoringPipelineConfig(
            file, self.reader, str(self.output.path), options.actors, options.threads_per_actor,
            options.batch_size, options.device,
        )  # fmt: skip
        connect(options, self.console, other_actors=scoring.num_tokenizer_actors + WRITERS)
        started = time.monotonic()
        with ProgressBar(self.console, "score", file.rows, "rows") as progress:

            def on_shard(counts: ShardCounts) -> None:
                for totals in (total, new):
                    totals.add(counts)
                progress.update(total.read)

            shards = [shard for shard in file.shards if shard.index not in finished]
            run_shards(scoring, shards, on_shard)
        return started

    def _format_summary(self, summary: ScoreSummary) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
        rejected = f"{summary['rejected']:,} rejected" + (f" ({reasons})" if reasons else "")
        rejects = f"; rejects: {self.output.rejects}" if summary["rejected"] else ""
        return (
            f"{summary['rows']:,} rows scored, {rejected}; {summary['tokens']:,} tokens; scores:"
            f" {self.output.results}{rejects}"
        )

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False)


def find_shards(options: ScoreOptions, reader: RowReader, output: ScoreOutput) -> ShardedFile:
    """Find the shards of the input file.

    Raises:
        ConfigError: the input is damaged, has columns that the output adds, or no usable row.
    """
    with bad_file_as_config_error("--input", options.input):
        file = split_into_shards(
            options.input, options.shard_rows, reader.check, output.folder, reader.fields
        )
        check_columns(options.input, file.columns.names, reader)
        check_usable(file, reader.check)
    return file


def _totals(finished: Iterable[ShardCounts]) -> tuple[Totals, Totals]:
    """Return two counters: one initialized with the finished shards, one empty for this run."""
    total = Totals()
    for counts in finished:
        total.add(counts)
    return total, Totals()
