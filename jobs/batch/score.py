"""jobs/score.py from options to summary: check, find the parts, score those that are missing."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.batch.file_job import alone, cause, file_job, readable, say
from jobs.batch.score_options import ScoreOptions
from jobs.batch.score_output import FILES, Counts, ScoreOutput
from jobs.sweep.main import FAILED, OK
from orchestrator.config.load import ConfigError
from orchestrator.data.shards import PartedFile, check_usable, cut_in_parts
from orchestrator.scorers.row_reader import RowReader
from orchestrator.stages.progress import Meter


def score_main(**given: Any) -> int:
    """Scores a file by the options of ``ScoreOptions``.

    The exit code is 2 for options that cannot be, 1 for a failure.
    """
    options = ScoreOptions(**given)

    def run(place: Path, console: Console) -> int:
        settled = options.resolved()
        reader, output = settled.reader(), ScoreOutput(place)
        with alone(output.folder, "--output", place):
            return _score(settled, reader, output, console)

    return file_job("score", "--output", options.output, FILES, run)


def _score(options: ScoreOptions, reader: RowReader, output: ScoreOutput, console: Console) -> int:
    from jobs.batch.score_pipeline import Scoring, run_parts  # imports Ray

    identity = options.identity()
    summary = output.begin(identity, options.force)
    if summary is not None:
        console.print(f"done before: {_shown(summary, output)}", highlight=False, markup=False)
        return OK
    console.print(f"scored at {identity['scored_token']}", highlight=False, markup=False)
    try:
        file = _cut(options, reader, output)
    except ConfigError:
        output.undo()
        raise
    before = {counts["part"]: counts for counts in output.done()}
    parts = [part for part in file.parts if part.number not in before]
    scoring = Scoring(
        file, reader, str(output.folder), options.actors, options.threads, options.batch_size,
        options.device,
    )  # fmt: skip
    total, new, started = Totals(before.values()), Totals(), time.monotonic()
    if before:
        console.print(f"{len(before)} of {len(file.parts)} parts are done", highlight=False)
    if parts:
        _connect(options, scoring.readers, console)
        started = time.monotonic()
        with Meter(console, "score", file.rows, "rows") as meter:

            def heard(counts: Counts) -> None:
                for totals in (total, new):
                    totals.add(counts)
                meter.update(total.seen)

            try:
                run_parts(scoring, parts, heard)
            except Exception as error:
                say(f"failed: {cause(error)}")
                say("finished shards are kept: fix the cause and run the same command again")
                return FAILED
    rate = new.seen / max(time.monotonic() - started, 1e-9)
    summary = output.finish(identity, total.counts())
    console.print(f"{_shown(summary, output)}; {rate:,.1f} rows/s", highlight=False, markup=False)
    return OK


def _cut(options: ScoreOptions, reader: RowReader, output: ScoreOutput) -> PartedFile:
    """The parts of the file.

    Raises:
        ConfigError: it is damaged, has columns that are added, or no row that can be scored.
    """
    from jobs.batch.score_pipeline import check_columns

    with readable("--input", options.input):
        file = cut_in_parts(
            options.input, options.part_rows, reader.check, output.folder, reader.fields
        )
        check_columns(options.input, file.columns.names, reader)
        check_usable(file, reader.check)
    return file


class Totals:
    """Counts of parts, added up."""

    def __init__(self, parts: Any = ()) -> None:
        self.rows = self.rejected = self.tokens = 0
        for counts in parts:
            self.add(counts)

    def add(self, counts: Counts) -> None:
        """One more part."""
        self.rows += counts["rows"]
        self.rejected += counts["rejected"]
        self.tokens += counts["tokens"]

    @property
    def seen(self) -> int:
        """Rows of the file, refused ones too."""
        return self.rows + self.rejected

    def counts(self) -> Counts:
        """As plain values."""
        return {"rows": self.rows, "rejected": self.rejected, "tokens": self.tokens}


def _connect(options: ScoreOptions, readers: int, console: Console) -> None:
    """Joins or starts Ray.

    Raises:
        ConfigError: it has no room for so many actors.
    """
    import ray

    from jobs.batch.score_pipeline import ACTOR_CPUS, WRITERS
    from jobs.sweep import cluster

    cluster.connect(console, dashboard=False)
    resources = ray.cluster_resources()
    room = resources.get("CPU", 0) / ACTOR_CPUS - readers - WRITERS
    if options.device == "cuda":
        room = min(room, resources.get("GPU", 0))
    if options.actors > room:
        ray.shutdown()
        raise ConfigError(
            f"--actors = {options.actors}: the cluster has room for {max(int(room), 0)} on"
            f" {options.device}; valid: at most that"
        )


def _shown(summary: dict[str, Any], output: ScoreOutput) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    refused = f"{summary['rejected']:,} rejected" + (f" ({reasons})" if reasons else "")
    where = f"; rejects: {output.rejects}" if summary["rejected"] else ""
    return (
        f"{summary['rows']:,} rows scored, {refused}; {summary['tokens']:,} tokens; scores:"
        f" {output.scores}{where}"
    )
