"""Reading a JSONL or Parquet file row by row; what is no row comes back as a reject, in its place.

Row numbers count from 1; in a JSONL file they are line numbers, and blank lines are no rows. Knows
nothing of what the rows mean.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.rejects import BadRow, refuse
from orchestrator.records import Reject

Row = dict[str, Any]
Parsed = TypeVar("Parsed")

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")  # .json holds JSON lines
VALID = f"a file or fsspec URI (such as hf://, s3://) that ends with one of {', '.join(SUFFIXES)}"
PARQUET_ROWS = 1_024  # rows of a Parquet file in memory at once
NOT_UTF8 = "not UTF-8"
NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"


def read_rows(path: str | Path) -> Iterator[tuple[int, Row] | Reject]:
    """Yields (row number, row) or a Reject for each row of a file, in order.

    The file is looked up at once, its rows are read as they are asked for.

    Raises:
        ValueError: the name's suffix is not a valid one.
        FileNotFoundError: there is no such file.
    """
    source = str(path)
    if not source.endswith(SUFFIXES):
        raise ValueError(f"{source}: cannot tell the format by the name; valid is {VALID}")
    filesystem, name = fsspec.core.url_to_fs(source)
    if not filesystem.isfile(name):
        raise FileNotFoundError(f"{source}: no such file; valid is {VALID}")
    return _parquet_rows(source) if source.endswith(".parquet") else _json_rows(source)


def parsed_rows(
    path: str | Path, parse: Callable[[int, Row], Iterable[Parsed | BadRow]]
) -> tuple[list[Parsed], list[Reject]]:
    """What ``parse(row number, row)`` makes of each row; a BadRow is a reject.

    A row may give several, and some of them may be a BadRow; one that ``parse`` raises ends its
    row. Every row of the file is in one of the two lists, both in the file's order.
    """
    parsed: list[Parsed] = []
    rejects: list[Reject] = []
    for item in read_rows(path):
        if isinstance(item, Reject):
            rejects.append(item)
            continue
        number, row = item
        for result in _until_bad(parse, number, row):
            if isinstance(result, BadRow):
                rejects.append(refuse(str(path), number, str(result), row))
            else:
                parsed.append(result)
    return parsed, rejects


def _until_bad(
    parse: Callable[[int, Row], Iterable[Parsed | BadRow]], number: int, row: Row
) -> Iterator[Parsed | BadRow]:
    try:
        yield from parse(number, row)
    except BadRow as bad:
        yield bad


def file_stem(path: str | Path) -> str:
    """The file's name without folders and suffixes: what its rows are called after."""
    name = PurePosixPath(str(path)).name
    return next((name[: -len(end)] for end in SUFFIXES if name.endswith(end)), name)


def _json_rows(source: str) -> Iterator[tuple[int, Row] | Reject]:
    with fsspec.open(source, "rb", compression="infer") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = json_row(line)
                if isinstance(row, str):
                    yield refuse(source, number, row, line.rstrip())
                else:
                    yield number, row


def json_row(line: bytes) -> Row | str:
    """The object on one line, or the reason why there is none."""
    try:
        # Some programs begin a file with a byte order mark, which JSON does not allow.
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, RecursionError):  # also numbers of thousands of digits, bottomless nesting
        return NOT_JSON
    return row if isinstance(row, dict) else NOT_AN_OBJECT


def _parquet_rows(source: str) -> Iterator[tuple[int, Row] | Reject]:
    number = 0
    with fsspec.open(source, "rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=PARQUET_ROWS):
            for row in batch_rows(batch):
                number += 1
                if isinstance(row, dict):
                    yield number, row
                else:
                    yield refuse(source, number, NOT_UTF8, str(row))


def batch_rows(batch: pa.RecordBatch) -> Iterator[Row | pa.RecordBatch]:
    """The rows of a batch; one whose text does not decode comes as a batch of its own."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        single = [batch.slice(i, 1) for i in range(batch.num_rows)]
    for part in single:
        try:
            yield from part.to_pylist()
        except UnicodeDecodeError:
            yield part
