"""The pipeline of jobs/score.py: Ray Data reads, scores and writes the shards of a file.

A shard is a row of a streaming data set. One actor reads, checks and tokenizes it, another scores
it, a third writes it; the driver receives its counts only. Readers and writer are actors, not
tasks: Ray ends a worker process that is idle for a second, and the next one imports torch again.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from actors.prefix_scores import (
    CUTS,
    PROMPT,
    RESPONSE,
    PrefixScorer,
    Shard,
    ShardCounts,
    from_bytes,
    to_bytes,
)
from jobs.batch.cluster_capacity import ACTOR_CPUS
from jobs.batch.score_output import ScoreOutput
from orchestrator.config.load import ConfigError
from orchestrator.data.rejects import SCHEMA as REJECTS
from orchestrator.data.shards import InputShard, ShardedFile, read_shard
from orchestrator.scorers.row_reader import SIDES, RowReader, TokenizedRow

WRITERS = 1
SHARDS_AHEAD = 8  # shards that are read ahead per scoring actor and wait in memory
# Memory of a shard (text, token ids and cuts), divided by the bytes of its rows in the file.
MEMORY_RATIO = 2
MIN_BYTES_AHEAD = 2**20
PAIR = "pair"  # the column that identifies a pair among ranked completions
_IDS = pa.list_(pa.int32())


@dataclass(frozen=True)
class ScoringPipelineConfig:
    """Configuration of the pipeline: what it scores and how.

    Attributes:
        file: the input file and its shards.
        reader: reads the rows.
        output: path of the output, a folder or a file.
        actors: scoring actors.
        threads: torch threads of each.
        batch_size: responses in a batch.
        device: torch device name.
    """

    file: ShardedFile
    reader: RowReader
    output: str
    actors: int
    threads: int
    batch_size: int
    device: str

    @property
    def num_tokenizer_actors(self) -> int:
        """Number of actors that tokenize: one for each core that does not score."""
        return max((os.cpu_count() or 1) - self.actors * self.threads, 1)


def run_shards(
    scoring: ScoringPipelineConfig,
    shards: Sequence[InputShard],
    on_shard: Callable[[ShardCounts], None],
) -> None:
    """Score and write shards, in any order. Ray must be running.

    Args:
        scoring: the file, the scorer and the output.
        shards: the shards of the file to score.
        on_shard: called with the counts of each shard that is written.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None  # a shard stays one block, however large its rows are
    shard_bytes = scoring.file.bytes / len(scoring.file.shards)
    ahead = scoring.actors * SHARDS_AHEAD * MEMORY_RATIO * shard_bytes
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(
        object_store_memory=max(ahead, MIN_BYTES_AHEAD)
    )
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the job reports errors itself
    for counts in _pipeline(scoring, shards).iter_rows():
        on_shard(counts)


def _pipeline(scoring: ScoringPipelineConfig, shards: Sequence[InputShard]) -> ray.data.Dataset:
    reader, file = scoring.reader, replace(scoring.file, shards=())
    return (
        # One block per shard. read_parquet would need a listing task, which requests a CPU.
        ray.data.from_items([asdict(shard) for shard in shards], override_num_blocks=len(shards))
        .map(
            ShardReader,
            fn_constructor_args=(file, reader),
            num_cpus=ACTOR_CPUS,
            compute=ActorPoolStrategy(size=min(scoring.num_tokenizer_actors, len(shards))),
        )
        .map(
            PrefixScorer,
            fn_constructor_args=(
                reader.spec, reader.position, reader.rows, scoring.batch_size, scoring.device,
                scoring.threads, file.source,
            ),
            num_cpus=ACTOR_CPUS,
            num_gpus=1 if scoring.device == "cuda" else 0,
            compute=ActorPoolStrategy(size=min(scoring.actors, len(shards))),
        )
        .map(
            ShardWriter,
            fn_constructor_args=(scoring.output,),
            num_cpus=ACTOR_CPUS,
            compute=ActorPoolStrategy(size=WRITERS),
        )
    )  # fmt: skip


class ShardReader:
    """A worker that reads and tokenizes the shards of a file.

    Args:
        file: the file.
        reader: reads the rows.
    """

    def __init__(self, file: ShardedFile, reader: RowReader) -> None:
        self._file, self._reader = file, reader

    def __call__(self, shard: dict[str, int]) -> Shard:
        """Return the rows of a shard with their token ids and cuts, and its rejects."""
        shard_data = read_shard(self._file, InputShard(**shard), self._reader.read_all)
        rows = [row for row in shard_data.parsed if isinstance(row, TokenizedRow)]
        table = shard_data.table.append_column("row", pa.array(shard_data.numbers, pa.int64()))
        if self._reader.rows == "ranked":
            table = table.append_column(PAIR, pa.array([row.pair for row in rows], pa.string()))
        table = table.append_column(PROMPT, pa.array([row.prompt_ids for row in rows], _IDS))
        for i, side in enumerate(SIDES[self._reader.rows].values()):
            ids = pa.array([row.responses[i] for row in rows], _IDS)
            prefix_lengths = pa.array([row.cuts[i] for row in rows], _IDS)
            table = table.append_column(RESPONSE.format(side), ids)
            table = table.append_column(CUTS.format(side), prefix_lengths)
        rejects = [asdict(reject) for reject in shard_data.rejects]
        return {
            "shard": shard["index"],
            "rows": len(rows),
            "rejected": len(rejects),
            "tokens": sum(row.tokens for row in rows),
            "table": to_bytes(table),
            "rejects": to_bytes(pa.Table.from_pylist(rejects, schema=REJECTS)),
        }


class ShardWriter:
    """A worker that writes scored shards.

    Args:
        output: path of the output, a folder or a file.
    """

    def __init__(self, output: str) -> None:
        self._output = ScoreOutput(Path(output))

    def __call__(self, shard: Shard) -> ShardCounts:
        """Write a shard and return its counts."""
        counts: ShardCounts = {
            "shard": shard["shard"], "rows": shard["rows"], "rejected": shard["rejected"],
            "tokens": shard["tokens"],
        }  # fmt: skip
        self._output.write(counts, from_bytes(shard["table"]), from_bytes(shard["rejects"]))
        return counts


def check_columns(source: str, names: Sequence[str], reader: RowReader) -> None:
    """Check that a file has none of the columns that the output adds.

    Raises:
        ConfigError: it has one.
    """
    added = {"row", PROMPT} | ({PAIR} if reader.rows == "ranked" else set())
    for side in SIDES[reader.rows].values():
        added |= {CUTS.format(side), RESPONSE.format(side)}
        added |= {f"{side}prefix_scores", f"{side}score"}
    if taken := sorted(added & set(names)):
        raise ConfigError(
            f"--input = {source!r}: it has columns that the output adds: {', '.join(taken)};"
            " valid: a file without them"
        )
