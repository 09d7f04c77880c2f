"""The pipeline of jobs/score.py: the parts of a file scored and written, by Ray Data.

A part is a row of a streaming data set: one actor reads, checks and tokenizes it, another scores
it, a third writes it. The driver hears of counts alone. Readers and writer are actors, not tasks:
Ray ends a process that had no task for a second, and the next one would import torch again.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from actors.prefix_scores import CUTS, PROMPT, RESPONSE, PrefixScorer, from_bytes, to_bytes
from jobs.batch.score_output import Counts, write_part
from orchestrator.config.load import ConfigError
from orchestrator.data.rejects import SCHEMA as REJECTS
from orchestrator.data.shards import Part, PartedFile, read_part
from orchestrator.scorers.row_reader import SIDES, RowReader

ACTOR_CPUS = 0.1  # logical, as small as a sweep's, so that both find a place in one cluster
WRITERS = 1
# What is read ahead of the actors waits in memory: so many parts for each, of so many bytes for a
# byte of the file (its text, token ids and cuts), and a little where parts are very small.
PARTS_AHEAD, GROWTH, LEAST_AHEAD = 8, 2, 2**20
PAIR = "pair"  # the column that tells the pairs of a row of ranked completions apart
_IDS = pa.list_(pa.int32())


@dataclass(frozen=True)
class Scoring:
    """What the pipeline needs: a file, how its rows are read, who scores them, where they go."""

    file: PartedFile
    reader: RowReader
    folder: str
    actors: int
    threads: int  # of torch, each actor's
    batch_size: int
    device: str

    @property
    def readers(self) -> int:
        """Actors that tokenize: as many as there are cores that do not score."""
        return max((os.cpu_count() or 1) - self.actors * self.threads, 1)


def run_parts(scoring: Scoring, parts: Sequence[Part], heard: Callable[[Counts], None]) -> None:
    """Scores and writes parts; ``heard`` gets the counts of each when it is written.

    Ray must be running. The order of parts is not kept.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None  # a part stays one, however large its rows are
    ahead = scoring.actors * PARTS_AHEAD * GROWTH * scoring.file.bytes / len(scoring.file.parts)
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(
        object_store_memory=max(ahead, LEAST_AHEAD)
    )
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are told by the job itself
    reader, file = scoring.reader, replace(scoring.file, parts=())
    pipeline = (
        # A block a part: a task reads one, and read_parquet's listing task, which asks for a whole
        # CPU, is not needed.
        ray.data.from_items([asdict(part) for part in parts], override_num_blocks=len(parts))
        .map(
            PartReader,
            fn_constructor_args=(file, reader),
            num_cpus=ACTOR_CPUS,
            compute=ActorPoolStrategy(size=min(scoring.readers, len(parts))),
        )
        .map(
            PrefixScorer,
            fn_constructor_args=(
                reader.spec, reader.position, reader.rows, scoring.batch_size, scoring.device,
                scoring.threads, file.source,
            ),
            num_cpus=ACTOR_CPUS,
            num_gpus=1 if scoring.device == "cuda" else 0,
            compute=ActorPoolStrategy(size=min(scoring.actors, len(parts))),
        )
        .map(
            PartWriter,
            fn_constructor_args=(scoring.folder,),
            num_cpus=ACTOR_CPUS,
            compute=ActorPoolStrategy(size=WRITERS),
        )
    )  # fmt: skip
    for counts in pipeline.iter_rows():
        heard(counts)


class PartReader:
    """A worker that reads the parts of a file as a scorer is asked."""

    def __init__(self, file: PartedFile, reader: RowReader) -> None:
        self._file, self._reader = file, reader

    def __call__(self, part: dict[str, int]) -> dict[str, Any]:
        """A part's rows with their token ids and cuts, and those that are refused."""
        found = read_part(self._file, Part(**part), self._reader.read_all)
        asked: list[Any] = found.parsed
        table = found.table.append_column("row", pa.array(found.numbers, pa.int64()))
        if self._reader.rows == "ranked":
            table = table.append_column(PAIR, pa.array([row.pair for row in asked], pa.string()))
        table = table.append_column(PROMPT, pa.array([row.prompt_ids for row in asked], _IDS))
        for i, side in enumerate(SIDES[self._reader.rows].values()):
            ids = pa.array([row.responses[i] for row in asked], _IDS)
            cuts = pa.array([row.cuts[i] for row in asked], _IDS)
            table = table.append_column(RESPONSE.format(side), ids)
            table = table.append_column(CUTS.format(side), cuts)
        refused = [asdict(reject) for reject in found.rejects]
        return {
            "part": part["number"],
            "rows": len(asked),
            "rejected": len(refused),
            "tokens": sum(row.tokens for row in asked),
            "table": to_bytes(table),
            "rejects": to_bytes(pa.Table.from_pylist(refused, schema=REJECTS)),
        }


class PartWriter:
    """A worker that writes scored parts."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def __call__(self, part: dict[str, Any]) -> Counts:
        """Writes a part; what is left of it are its counts."""
        counts = {name: part[name] for name in ("part", "rows", "rejected", "tokens")}
        write_part(self._folder, counts, from_bytes(part["table"]), from_bytes(part["rejects"]))
        return counts


def check_columns(source: str, names: Sequence[str], reader: RowReader) -> None:
    """Raises ConfigError where the file has columns of the names that are added."""
    added = {"row", PROMPT} | ({PAIR} if reader.rows == "ranked" else set())
    for side in SIDES[reader.rows].values():
        added |= {CUTS.format(side), RESPONSE.format(side)}
        added |= {f"{side}prefix_scores", f"{side}score"}
    if taken := sorted(added & set(names)):
        raise ConfigError(
            f"--input = {source!r}: has columns of its own named {', '.join(taken)}, which the"
            " output adds; valid: a file without them"
        )
