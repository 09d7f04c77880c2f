"""The rows of jobs/decode.py: prompts that are read, and responses that are written in shards."""

import json
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import fsspec
import pyarrow as pa

from jobs.batch.decode_arguments import LINES
from jobs.batch.decode_output import DecodeOutput, RejectRow
from jobs.batch.file_job import bad_file_as_config_error
from orchestrator.config.load import ConfigError
from orchestrator.conversations.chat import Chat
from orchestrator.data.rejects import BadRow, Seen, make_reject
from orchestrator.data.rows import Row, plain_rows
from orchestrator.data.shards import ShardedFile, check_usable, read_shard, split_into_shards
from orchestrator.decoding.prompts import FIELDS, PromptReader
from orchestrator.evaluation.costs import COSTS, COUNTS
from orchestrator.evaluation.flops import Sizes
from orchestrator.records import Reject, Response
from orchestrator.search.problem import Problem

READ_ROWS = 256  # rows of the file that are read at once
SAME_ID = "duplicate prompt_id: an earlier row has it"
FLUSH_SECONDS = 30.0  # seconds after which a shard is written even if it is not full
INTEGERS = tuple(name for name in COUNTS if name != "seconds")
ADDED = pa.schema(
    [
        ("row", pa.int64()),
        ("prompt_id", pa.string()),
        ("response", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("stop", pa.string()),
        ("score", pa.float64()),
        ("step_scores", pa.list_(pa.float64())),
        ("margin", pa.float64()),
        *((name, pa.int64() if name in INTEGERS else pa.float64()) for name in COSTS),
    ]
)


@dataclass(frozen=True)
class PromptRow:
    """A row of the file: its number, and its columns as a table of one row."""

    number: int
    table: pa.Table


def find_shards(source: str, reader: PromptReader, output: DecodeOutput) -> ShardedFile:
    """Find the shards of a file of prompts.

    Raises:
        ConfigError: it is damaged, has columns that the output adds, or has no usable prompt.
    """
    path = _as_json_lines(source, output.folder) if source.endswith(LINES) else source
    with bad_file_as_config_error("--prompts", source):
        file = split_into_shards(
            path, READ_ROWS, reader.check, output.folder, FIELDS, as_text=output.writes_json
        )
        if taken := sorted((set(ADDED.names) - {"prompt_id"}) & set(file.columns.names)):
            raise ConfigError(
                f"--prompts = {source!r}: it has columns that the output adds: {', '.join(taken)};"
                " valid: a file without these columns"
            )
        check_usable(file, reader.check)
    return file


def prompts(
    file: ShardedFile, reader: PromptReader, finished: Container[int], writer: "RowWriter"
) -> Iterator[tuple[PromptRow, Problem]]:
    """Yield the rows that are not finished; rows that cannot be answered go to the writer.

    Random numbers and output rows are keyed by the prompt's id. So of rows with the same id the
    first one is answered, and the others are rejects.

    Args:
        file: the prompts.
        reader: reads a row.
        finished: numbers of the rows that are answered or rejected.
        writer: writes rejects.
    """
    ids = Seen(SAME_ID)

    def read(number: int, row: Row) -> Problem:
        ids.check(reader.check(number, row)[0])
        if number in finished:
            raise BadRow("finished")
        return reader.read(number, row)

    for shard in file.shards:
        rows = read_shard(file, shard, read)
        for reject in rows.rejects:
            if reject.row not in finished:
                writer.reject(reject)
        for i, (number, problem) in enumerate(zip(rows.numbers, rows.parsed, strict=True)):
            assert isinstance(problem, Problem)
            yield PromptRow(number, rows.table.slice(i, 1)), problem


class RowWriter:
    """Writes responses and rejects to shards as they arrive.

    Args:
        output: the output.
        source: the file of prompts, for rejects.
        chat: the policy's chat format, which converts token ids to text.
        sizes: parameters of both models, for FLOPs.
        shard_rows: rows of a shard.
    """

    def __init__(
        self, output: DecodeOutput, source: str, chat: Chat, sizes: Sizes, shard_rows: int
    ) -> None:
        self._output, self._source, self._chat = output, source, chat
        self._sizes, self._shard_rows = sizes, shard_rows
        self._prompts: list[pa.Table] = []
        self._responses: list[Mapping[str, object]] = []
        self._rejects: list[RejectRow] = []
        self._last_flush = time.monotonic()
        self.rows = 0

    def answer(self, row: PromptRow, response: Response) -> None:
        """Add a response."""
        self._prompts.append(row.table)
        self._responses.append(
            {
                "row": row.number,
                "prompt_id": response.prompt_id,
                "response": self._chat.response_text(response.token_ids),
                "token_ids": response.token_ids,
                "stop": response.stop,
                "score": response.score,
                "step_scores": response.step_scores,
                "margin": response.margin,
                **asdict(response.cost),
                **self._sizes.flops(response.cost),
            }
        )
        self._count_row()

    def fail(self, row: PromptRow, reason: str) -> None:
        """Add a reject for a prompt whose search failed."""
        (content,) = plain_rows(row.table)
        self.reject(make_reject(self._source, row.number, reason, content))

    def reject(self, reject: Reject) -> None:
        """Add a reject."""
        self._rejects.append(
            {
                "source": self._source, "row": reject.row, "reason": reject.reason,
                "content": reject.content,
            }
        )  # fmt: skip
        self._count_row()

    def flush(self) -> None:
        """Write a shard of what has been added, if there is anything."""
        table = None
        if self._responses:
            table = pa.Table.from_pylist(self._responses, schema=ADDED)
            columns = pa.concat_tables(self._prompts)
            names = [name for name in columns.column_names if name != "prompt_id"]
            for name in names:
                table = table.append_column(columns.schema.field(name), columns[name])
            table = table.select(["row", "prompt_id", *names, *ADDED.names[2:]])
        if self._responses or self._rejects:
            self._output.write(table, self._rejects)
        self._prompts, self._responses, self._rejects = [], [], []
        self._last_flush = time.monotonic()

    def close(self) -> None:
        """Flush; if no prompt was answered, write a shard without rows."""
        self.flush()
        if not self._output.shards():
            self._output.write(ADDED.empty_table(), [])

    def _count_row(self) -> None:
        self.rows += 1
        waiting = len(self._responses) + len(self._rejects)
        if waiting >= self._shard_rows or time.monotonic() - self._last_flush > FLUSH_SECONDS:
            self.flush()


def _as_json_lines(source: str, folder: Path) -> str:
    """Copy lines of text as JSON lines, line by line; lines that are not UTF-8 stay as they are."""
    path = folder / "unpacked.lines.jsonl"
    with fsspec.open(source, "rb") as lines, open(path, "wb") as copy:
        for line in lines:
            text = line.rstrip(b"\r\n")
            try:
                row = json.dumps({"prompt": text.decode("utf-8-sig")}).encode()
            except UnicodeDecodeError:
                row = text
            copy.write((row if text.strip() else b"") + b"\n")
    return str(path)
