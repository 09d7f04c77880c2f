"""The output of jobs/decode.py: shards of responses in the order in which prompts are answered."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.batch.options import Identity
from jobs.batch.output import FileJobOutput, Manifest, Summary
from orchestrator.data.columns import JSON_COLUMN, row_from_json
from orchestrator.data.rejects import SCHEMA as REJECTS
from orchestrator.data.rows import Row, plain_rows
from orchestrator.evaluation.costs import COSTS

LINES = ".jsonl"


class RejectRow(TypedDict):
    """A row of the table of rejects."""

    source: str
    row: int
    reason: str
    content: str


class ResponseTotals(TypedDict):
    """Sums and means over all responses.

    Attributes:
        answered: responses.
        ended: responses that end with the end token.
        response_tokens: tokens of all responses.
        mean_score: mean over the responses that have a score; None if none has.
        cost: the sum of each cost.
    """

    answered: int
    ended: int
    response_tokens: int
    mean_score: float | None
    cost: dict[str, float]


class DecodeSummary(ResponseTotals, Summary):
    """The summary of a decoded file; ``seconds`` are those of the last run."""

    seconds: float


class DecodeOutput(FileJobOutput[DecodeSummary]):
    """The output of one run of jobs/decode.py: a folder, or a Parquet or JSON Lines file."""

    OPTION: ClassVar[str] = "--out"
    RESULTS: ClassVar[str] = "responses"
    MANIFEST: ClassVar[str] = "decode.json"
    SUFFIXES: ClassVar[tuple[str, ...]] = (".parquet", LINES)

    @property
    def manifest(self) -> Path:
        """The file of the manifest: in the output folder, or next to the output file."""
        return self.path.with_name(f"{self.path.stem}.{self.MANIFEST}") if (
            self.file) else super().manifest  # fmt: skip

    @property
    def writes_json(self) -> bool:
        """Whether the output is a JSON Lines file, in which each value keeps its own type."""
        return self.file is not None and self.file.suffix == LINES

    def finished_rows(self) -> set[int]:
        """Return the numbers of the rows that are answered or rejected."""
        rows: set[int] = set()
        for shard in (*self.shards(), *self.reject_shards()):
            rows.update(pq.read_table(shard, columns=["row"])["row"].to_pylist())
        return rows

    def count_rows(self) -> int:
        """Return how many rows are answered or rejected, from the metadata of the shards."""
        shards = (*self.shards(), *self.reject_shards())
        return sum(pq.read_metadata(shard).num_rows for shard in shards)

    def write(self, table: pa.Table | None, rejects: Sequence[RejectRow]) -> None:
        """Write the next shard: responses (None: there are none) and rejects."""
        shards = (*self.shards(), *self.reject_shards())
        index = 1 + max((int(shard.stem.split("-")[1]) for shard in shards), default=-1)
        reject_table = pa.Table.from_pylist(list(rejects), schema=REJECTS)
        self.write_shard(index, None if table is None else table.sort_by("row"), reject_table)

    def finish(self, identity: Identity, seconds: float) -> DecodeSummary:
        """Finish the output and return its summary."""
        totals, reasons = self._totals(), self.join_rejects()
        summary: DecodeSummary = {**totals, "reasons": reasons, "seconds": round(seconds, 3)}
        return self.close(identity, summary)

    def _totals(self) -> ResponseTotals:
        costs: Counter[str] = Counter()
        answered = ended = tokens = scored = 0
        total = 0.0
        for shard in self.shards():
            table = pq.read_table(shard, columns=["stop", "score", "token_ids", *COSTS])
            answered += table.num_rows
            ended += table["stop"].to_pylist().count("end")
            tokens += pc.sum(pc.list_value_length(table["token_ids"])).as_py() or 0
            scored += table.num_rows - table["score"].null_count
            total += pc.sum(table["score"]).as_py() or 0.0
            costs.update({name: pc.sum(table[name]).as_py() or 0 for name in COSTS})
        return {
            "answered": answered,
            "ended": ended,
            "response_tokens": tokens,
            "mean_score": total / scored if scored else None,
            "cost": dict(costs),
        }

    def join(self, file: Path, manifest: Manifest[DecodeSummary]) -> None:
        """Write all shards to one file, in the order of the prompts."""
        tables = self._in_order()
        if self.writes_json:
            with open(file, "w", encoding="utf-8") as lines:
                for table in tables:
                    lines.writelines(_line(row) for row in plain_rows(table))
            return
        first = next(tables)
        with pq.ParquetWriter(file, first.schema) as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)

    def _in_order(self) -> Iterator[pa.Table]:
        """Yield all rows by their number; only shards with overlapping ranges are in memory."""
        firsts = sorted(
            (pc.min(pq.read_table(shard, columns=["row"])["row"]).as_py() or 0, shard)
            for shard in self.shards()
        )
        pending: pa.Table | None = None
        for i, (_, shard) in enumerate(firsts):
            table = pq.read_table(shard)
            pending = table if pending is None else pa.concat_tables([pending, table])
            if i + 1 < len(firsts):
                ready = pc.less(pending["row"], firsts[i + 1][0])
                yield pending.filter(ready).sort_by("row")
                pending = pending.filter(pc.invert(ready))
        if pending is not None:
            yield pending.sort_by("row")


def _line(row: Row) -> str:
    """Return a response as a line of JSON; the columns of the prompt keep their values."""
    columns = row_from_json(str(row.pop(JSON_COLUMN))) if JSON_COLUMN in row else {}
    prompt_id = columns.pop("prompt_id", None)
    first = {"row": row.pop("row"), "prompt_id": row.pop("prompt_id")}
    if prompt_id is not None:
        first["prompt_id"] = prompt_id
    return json.dumps(_finite({**first, **columns, **row}), default=str, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    """Replace NaN and infinities by None, since JSON has neither."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
