"""The output of jobs/score.py: shards of scored rows, each with its counts in its metadata."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from actors.prefix_scores import ShardCounts
from jobs.batch.options import Identity
from jobs.batch.output import FileJobOutput, Manifest, Summary

# Keys in the metadata of Parquet files.
COUNTS_KEY, MANIFEST_KEY = b"prm_orchestrator.shard", b"prm_orchestrator.score"


class ScoreSummary(Summary):
    """The summary of a scored file: scored rows, rejects, and tokens of the scored rows."""

    rows: int
    rejected: int
    tokens: int


@dataclass
class Totals:
    """The sum of the counts of shards."""

    rows: int = 0
    rejected: int = 0
    tokens: int = 0

    def add(self, counts: ShardCounts) -> None:
        """Add the counts of a shard."""
        self.rows += counts["rows"]
        self.rejected += counts["rejected"]
        self.tokens += counts["tokens"]

    @property
    def read(self) -> int:
        """Rows that were read: scored ones and rejects."""
        return self.rows + self.rejected


class ScoreOutput(FileJobOutput[ScoreSummary]):
    """The output of one run of jobs/score.py: a folder, or a Parquet file.

    The manifest of a finished file is in the file's metadata.
    """

    OPTION: ClassVar[str] = "--output"
    RESULTS: ClassVar[str] = "scores"
    MANIFEST: ClassVar[str] = "score.json"
    SUFFIXES: ClassVar[tuple[str, ...]] = (".parquet",)

    def write(self, counts: ShardCounts, table: pa.Table, rejects: pa.Table) -> None:
        """Write a shard with its counts and its rejects."""
        metadata = {**(table.schema.metadata or {}), COUNTS_KEY: json.dumps(counts).encode()}
        self.write_shard(counts["shard"], table.replace_schema_metadata(metadata), rejects)

    def finished_shards(self) -> Iterator[ShardCounts]:
        """Yield the counts of each shard that is written."""
        for shard in self.shards():
            yield json.loads(pq.read_schema(shard).metadata[COUNTS_KEY])

    def finish(self, identity: Identity, totals: Totals) -> ScoreSummary:
        """Finish the output and return its summary."""
        reasons = self.join_rejects()
        summary: ScoreSummary = {
            "rows": totals.rows, "rejected": totals.rejected, "tokens": totals.tokens,
            "reasons": reasons,
        }  # fmt: skip
        return self.close(identity, summary)

    def read_manifest(self) -> Manifest[ScoreSummary] | None:
        """Read the manifest of the folder, or of a finished file."""
        manifest = super().read_manifest()
        if manifest is not None or self.file is None or not self.file.is_file():
            return manifest
        try:
            text = (pq.read_schema(self.file).metadata or {}).get(MANIFEST_KEY)
        except (pa.ArrowException, OSError):
            return None
        return None if text is None else Manifest[ScoreSummary].from_json(text)

    def write_final_manifest(self, manifest: Manifest[ScoreSummary]) -> None:
        """Write the manifest of a finished folder; a file has it already."""
        if self.file is None:
            super().write_final_manifest(manifest)

    def join(self, file: Path, manifest: Manifest[ScoreSummary]) -> None:
        """Write all shards to one Parquet file, each as a row group, with the manifest."""
        shards = self.shards()
        schema = pq.read_schema(shards[0])
        metadata = {k: v for k, v in (schema.metadata or {}).items() if k != COUNTS_KEY}
        schema = schema.with_metadata({**metadata, MANIFEST_KEY: manifest.to_json().encode()})
        with pq.ParquetWriter(file, schema) as writer:
            for shard in shards:
                writer.write_table(pq.read_table(shard).replace_schema_metadata(schema.metadata))
