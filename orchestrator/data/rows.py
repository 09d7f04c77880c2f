"""Reading JSONL and Parquet files row by row; unreadable rows are returned as rejects, in order.

Row numbers count from 1; in a JSONL file they are line numbers, and blank lines are not rows.
Independent of the meaning of the rows.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import fsspec
import pyarrow as pa

from orchestrator.data.files import BadFile, json_lines, parquet_file, reading, used_columns
from orchestrator.data.rejects import BadRow, make_reject
from orchestrator.records import Reject

Row = dict[str, Any]
Parsed = TypeVar("Parsed")

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")  # .json holds JSON lines
VALID = f"a file or fsspec URI (such as hf://, s3://) that ends with one of {', '.join(SUFFIXES)}"
PARQUET_ROWS = 1_024  # rows of a Parquet file in memory at once
MAX_LEVELS = 100  # nesting levels: bounds the stack of later readers
NOT_UTF8 = "not UTF-8"
NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"
DUPLICATE_FIELD = "duplicate key in a JSON object"
NESTED = f"nested over {MAX_LEVELS} levels"
NOT_READABLE = "a value that cannot be read"
# Exceptions of Arrow values without a Python type: invalid text, dates out of range.
_NO_VALUE = (ValueError, OverflowError, ImportError, pa.ArrowException)


@dataclass(frozen=True)
class Unreadable:
    """A row of a Parquet file with a value that Python cannot represent."""

    reason: str
    content: str


def read_rows(
    path: str | Path, fields: Collection[str] | None = None
) -> Iterator[tuple[int, Row] | Reject]:
    """Yield (row number, row) or a Reject for each row of a file, in order.

    The file is checked at once; rows are read lazily. Only the columns in ``fields`` of a Parquet
    file are read; None: all.

    Raises:
        ValueError: the name's suffix is not a valid one.
        FileNotFoundError: there is no such file.
        BadFile: it is damaged or of another format; also raised while rows are read.
    """
    source = check_exists(path)
    return _parquet_rows(source, fields) if source.endswith(".parquet") else _json_rows(source)


def check_exists(path: str | Path) -> str:
    """Return the name of a file of rows, after a check that it exists.

    Raises:
        ValueError: the name's suffix is not a valid one.
        FileNotFoundError: there is no such file.
        ImportError: the package for its kind of URI is not installed.
    """
    source = str(path)
    if not source.endswith(SUFFIXES):
        raise ValueError(f"{source}: unknown format; valid is {VALID}")
    filesystem, name = fsspec.core.url_to_fs(source)
    if not filesystem.isfile(name):
        raise FileNotFoundError(f"{source}: no such file; valid is {VALID}")
    return source


def parsed_rows(
    path: str | Path,
    parse: Callable[[int, Row], Iterable[Parsed | BadRow]],
    fields: Collection[str] | None = None,
) -> tuple[list[Parsed], list[Reject]]:
    """Parse each row with ``parse(row number, row)``; return the results and the rejects.

    A row may yield several results; each BadRow that it yields or raises is a reject, and a raised
    one ends the row. Both lists are in the file's order. ``fields`` are those that ``parse`` reads.
    """
    parsed: list[Parsed] = []
    rejects: list[Reject] = []
    for item in read_rows(path, fields):
        if isinstance(item, Reject):
            rejects.append(item)
            continue
        number, row = item
        for result in _until_bad(parse, number, row):
            if isinstance(result, BadRow):
                rejects.append(make_reject(str(path), number, str(result), row))
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
    """Return the file's name without folders and suffixes, the prefix of its rows' ids."""
    name = PurePosixPath(str(path)).name
    return next((name[: -len(end)] for end in SUFFIXES if name.endswith(end)), name)


def _json_rows(source: str) -> Iterator[tuple[int, Row] | Reject]:
    for number, line in json_lines(source):
        if line.strip():
            row = json_row(line)
            if isinstance(row, str):
                yield make_reject(source, number, row, line.rstrip())
            else:
                yield number, row


def json_row(line: bytes) -> Row | str:
    """Parse the JSON object on a line; return the reason as text if there is none."""
    try:
        # Some programs begin a file with a byte order mark, which JSON does not allow.
        row = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError:
        return NOT_UTF8
    except _DuplicateField:
        return DUPLICATE_FIELD
    except (
        ValueError,
        RecursionError,
    ):  # also numbers of thousands of digits, and unbounded nesting
        return NOT_JSON
    if not isinstance(row, dict):
        return NOT_AN_OBJECT
    deep = line.count(b"[") + line.count(b"{") > MAX_LEVELS and _is_deep(row)
    return NESTED if deep else row


class _DuplicateField(Exception):
    """An object has two fields of one name."""


def _object(pairs: list[tuple[str, object]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _DuplicateField
    return row


def _is_deep(value: object) -> bool:
    """Return whether a value is nested over MAX_LEVELS levels."""
    level: list[Any] = [value]
    for _ in range(MAX_LEVELS):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [child for items in inner for child in items if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _parquet_rows(
    source: str, fields: Collection[str] | None
) -> Iterator[tuple[int, Row] | Reject]:
    number = 0
    with fsspec.open(source, "rb") as stream:
        file = parquet_file(stream, source)
        with reading(source):
            used = used_columns(source, file.schema_arrow.names, fields)
        batches = file.iter_batches(batch_size=PARQUET_ROWS, columns=used)
        while True:
            with reading(source, f" after row {number}, columns {', '.join(used)}"):
                batch = next(batches, None)
            if batch is None:
                break
            for row in batch_rows(batch):
                number += 1
                if isinstance(row, Unreadable):
                    yield make_reject(source, number, row.reason, row.content)
                else:
                    yield number, row
        if number != file.metadata.num_rows:
            raise BadFile(source, f"is damaged: {number} of {file.metadata.num_rows} rows")


def batch_rows(batch: pa.RecordBatch) -> Iterator[Row | Unreadable]:
    """Yield the rows of a batch; rows that Python cannot represent are ``Unreadable``."""
    try:
        yield from batch.to_pylist()
        return
    except _NO_VALUE:
        slices = [batch.slice(i, 1) for i in range(batch.num_rows)]
    for row in slices:
        try:
            yield from row.to_pylist()
        except UnicodeDecodeError:
            yield Unreadable(NOT_UTF8, _text(row))
        except _NO_VALUE:
            yield Unreadable(NOT_READABLE, _text(row))


def plain_rows(table: pa.Table) -> list[Row]:
    """Convert all rows of a table to Python values; values without a Python type become text."""
    names = table.column_names
    columns = [_plain_values(column) for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain_values(column: pa.ChunkedArray) -> list[object]:
    try:
        return list(column.to_pylist())
    except _NO_VALUE:
        return [_plain(value) for value in column]


def _plain(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except _NO_VALUE:
        pass
    try:
        return value.cast(pa.binary()).as_py().decode(errors="backslashreplace")
    except _NO_VALUE:
        pass
    try:
        return value.cast(pa.string()).as_py()
    except _NO_VALUE:
        return NOT_READABLE


def _text(row: pa.RecordBatch) -> str:
    try:
        return str(row)
    except _NO_VALUE:
        return NOT_READABLE
