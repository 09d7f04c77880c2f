"""The rows of jobs/decode.py: prompts read as there is room, responses written in parts."""

import json
import time
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from jobs.batch.decode_options import LINES
from jobs.batch.decode_output import DecodeOutput
from jobs.batch.file_job import readable
from jobs.sweep.responses import COSTS, COUNTS
from orchestrator.config.load import ConfigError
from orchestrator.conversations.chat import Chat
from orchestrator.data.rejects import BadRow, Seen, refuse
from orchestrator.data.rows import Row, plain_rows
from orchestrator.data.shards import PartedFile, check_usable, cut_in_parts, read_part
from orchestrator.decoding.prompts import FIELDS, PromptReader
from orchestrator.evaluation.flops import Sizes
from orchestrator.records import Reject, Response
from orchestrator.search.problem import Problem

READ_ROWS = 256  # of the file, read at once
SAME_ID = "prompt_id of a row before"
SECONDS = 30.0  # after which rows are written, be they few
WHOLE = tuple(name for name in COUNTS if name != "seconds")
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
        *((name, pa.int64() if name in WHOLE else pa.float64()) for name in COSTS),
    ]
)


@dataclass(frozen=True)
class PromptRow:
    """A row of the file: its number, and its own columns as a table of one row."""

    number: int
    table: pa.Table


def cut(source: str, reader: PromptReader, output: DecodeOutput) -> PartedFile:
    """The parts of a file of prompts.

    Raises:
        ConfigError: it is damaged, has columns of the names that are added, or no prompt at all.
    """
    place = _as_json(source, output.folder) if source.endswith(LINES) else source
    with readable("--prompts", source):
        file = cut_in_parts(
            place, READ_ROWS, reader.check, output.folder, FIELDS, as_text=output.writes_json
        )
        if taken := sorted((set(ADDED.names) - {"prompt_id"}) & set(file.columns.names)):
            raise ConfigError(
                f"--prompts = {source!r}: has columns of its own named {', '.join(taken)}, which"
                " the output adds; valid: a file without them"
            )
        check_usable(file, reader.check)
    return file


def prompts(
    file: PartedFile, reader: PromptReader, done: Container[int], writer: "RowWriter"
) -> Iterator[tuple[PromptRow, Problem]]:
    """The rows that are not done; those that cannot be answered go to the writer.

    Draws and rows of the output are told apart by the prompt's id, so that of rows with one id the
    first is answered and the others are refused.
    """
    ids = Seen(SAME_ID)

    def read(number: int, row: Row) -> Problem:
        ids.check(reader.check(number, row)[0])
        if number in done:
            raise BadRow("done")
        return reader.read(number, row)

    for part in file.parts:
        found = read_part(file, part, read)
        for reject in found.rejects:
            if reject.row not in done:
                writer.refuse(reject)
        for i, (number, problem) in enumerate(zip(found.numbers, found.parsed, strict=True)):
            assert isinstance(problem, Problem)
            yield PromptRow(number, found.table.slice(i, 1)), problem


class RowWriter:
    """Writes rows in parts as they come.

    Args:
        output: where to.
        source: the prompts' file, as rejects name it.
        chat: the policy's, which writes responses out.
        sizes: of both models, for FLOPs.
        part_rows: of a part.
    """

    def __init__(
        self, output: DecodeOutput, source: str, chat: Chat, sizes: Sizes, part_rows: int
    ) -> None:
        self._output, self._source, self._chat, self._most = output, source, chat, part_rows
        self._sizes = sizes
        self._kept: list[pa.Table] = []
        self._rows: list[dict[str, Any]] = []
        self._rejects: list[dict[str, Any]] = []
        self._written = time.monotonic()
        self.seen = 0

    def answer(self, row: PromptRow, response: Response) -> None:
        """One more response."""
        self._kept.append(row.table)
        self._rows.append(
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
        self._one_more()

    def fail(self, row: PromptRow, reason: str) -> None:
        """A prompt that failed while it was answered."""
        (content,) = plain_rows(row.table)
        self.refuse(refuse(self._source, row.number, reason, content))

    def refuse(self, reject: Reject) -> None:
        """A row that is refused."""
        self._rejects.append(asdict(replace(reject, source=self._source)))
        self._one_more()

    def flush(self) -> None:
        """Writes what has come."""
        table = None
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=ADDED)
            own = pa.concat_tables(self._kept)
            names = [name for name in own.column_names if name != "prompt_id"]
            for name in names:
                table = table.append_column(own.schema.field(name), own[name])
            table = table.select(["row", "prompt_id", *names, *ADDED.names[2:]])
        if self._rows or self._rejects:
            self._output.write(table, self._rejects)
        self._kept, self._rows, self._rejects = [], [], []
        self._written = time.monotonic()

    def close(self) -> None:
        """Writes the rest; where no prompt was answered, a part without rows."""
        self.flush()
        if not self._output.has_parts:
            self._output.write(ADDED.empty_table(), [])

    def _one_more(self) -> None:
        self.seen += 1
        waiting = len(self._rows) + len(self._rejects)
        if waiting >= self._most or time.monotonic() - self._written > SECONDS:
            self.flush()


def _as_json(source: str, folder: Path) -> str:
    """A copy of lines of text as JSON lines, a line for a line; what is no UTF-8 stays as it is."""
    place = folder / "unpacked.lines.jsonl"
    with fsspec.open(source, "rb") as lines, open(place, "wb") as copy:
        for line in lines:
            text = line.rstrip(b"\r\n")
            try:
                row = json.dumps({"prompt": text.decode("utf-8-sig")}).encode()
            except UnicodeDecodeError:
                row = text
            copy.write((row if text.strip() else b"") + b"\n")
    return str(place)
