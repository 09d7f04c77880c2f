"""Reading a JSONL or Parquet file row by row; what is no row comes back as a reject, in its place.

Row numbers count from 1; in a JSONL file they are line numbers, and blank lines are no rows. Knows
nothing of what the rows mean.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import fsspec
import pyarrow as pa

from orchestrator.data.files import BadFile, json_lines, parquet_file, reading, used_columns
from orchestrator.data.rejects import BadRow, refuse
from orchestrator.records import Reject

Row = dict[str, Any]
Parsed = TypeVar("Parsed")

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")  # .json holds JSON lines
VALID = f"a file or fsspec URI (such as hf://, s3://) that ends with one of {', '.join(SUFFIXES)}"
PARQUET_ROWS = 1_024  # rows of a Parquet file in memory at once
MOST_NESTED = 100  # levels of a row: what reads it further takes no more of the stack
NOT_UTF8 = "not UTF-8"
NOT_JSON = "not JSON"
NOT_AN_OBJECT = "not an object"
TWICE = "a field is there twice"
NESTED = f"nested over {MOST_NESTED} levels"
NOT_READABLE = "a value that cannot be read"
# What values of Arrow raise that Python has no like of: text that is none, dates past its years.
_NO_VALUE = (ValueError, OverflowError, ImportError, pa.ArrowException)


@dataclass(frozen=True)
class Unreadable:
    """A row of a Parquet file that holds what Python cannot."""

    reason: str
    content: str


def read_rows(
    path: str | Path, fields: Collection[str] | None = None
) -> Iterator[tuple[int, Row] | Reject]:
    """Yields (row number, row) or a Reject for each row of a file, in order.

    The file is looked up at once, its rows are read as they are asked for. Of a Parquet file only
    the columns in ``fields`` are read, where it is given.

    Raises:
        ValueError: the name's suffix is not a valid one.
        FileNotFoundError: there is no such file.
        BadFile: it is damaged or of another form; while rows are read, too.
    """
    source = check_is_there(path)
    return _parquet_rows(source, fields) if source.endswith(".parquet") else _json_rows(source)


def check_is_there(path: str | Path) -> str:
    """The name of a file of rows that is there.

    Raises:
        ValueError: the name's suffix is not a valid one.
        FileNotFoundError: there is no such file.
        ImportError: the package for its kind of URI is not installed.
    """
    source = str(path)
    if not source.endswith(SUFFIXES):
        raise ValueError(f"{source}: cannot tell the format by the name; valid is {VALID}")
    filesystem, name = fsspec.core.url_to_fs(source)
    if not filesystem.isfile(name):
        raise FileNotFoundError(f"{source}: no such file; valid is {VALID}")
    return source


def parsed_rows(
    path: str | Path,
    parse: Callable[[int, Row], Iterable[Parsed | BadRow]],
    fields: Collection[str] | None = None,
) -> tuple[list[Parsed], list[Reject]]:
    """What ``parse(row number, row)`` makes of each row; a BadRow is a reject.

    A row may give several, and some of them may be a BadRow; one that ``parse`` raises ends its
    row. Every row of the file is in one of the two lists, both in the file's order. ``fields`` are
    those that ``parse`` may look at.
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
    for number, line in json_lines(source):
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
        row = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError:
        return NOT_UTF8
    except _Twice:
        return TWICE
    except (ValueError, RecursionError):  # also numbers of thousands of digits, bottomless nesting
        return NOT_JSON
    if not isinstance(row, dict):
        return NOT_AN_OBJECT
    deep = line.count(b"[") + line.count(b"{") > MOST_NESTED and _is_deep(row)
    return NESTED if deep else row


class _Twice(Exception):
    """An object with two fields of one name."""


def _object(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice
    return found


def _is_deep(value: Any) -> bool:
    """Whether a value is nested over MOST_NESTED levels."""
    level = [value]
    for _ in range(MOST_NESTED):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [part for items in inner for part in items if isinstance(part, (dict, list))]
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
            with reading(source, f" behind row {number}, columns {', '.join(used)}"):
                batch = next(batches, None)
            if batch is None:
                break
            for row in batch_rows(batch):
                number += 1
                if isinstance(row, Unreadable):
                    yield refuse(source, number, row.reason, row.content)
                else:
                    yield number, row
        if number != file.metadata.num_rows:
            raise BadFile(source, f"is damaged: {number} of {file.metadata.num_rows} rows")


def batch_rows(batch: pa.RecordBatch) -> Iterator[Row | Unreadable]:
    """The rows of a batch; one that holds what Python cannot comes as ``Unreadable``."""
    try:
        yield from batch.to_pylist()
        return
    except _NO_VALUE:
        single = [batch.slice(i, 1) for i in range(batch.num_rows)]
    for part in single:
        try:
            yield from part.to_pylist()
        except UnicodeDecodeError:
            yield Unreadable(NOT_UTF8, _text(part))
        except _NO_VALUE:
            yield Unreadable(NOT_READABLE, _text(part))


def plain_rows(table: pa.Table) -> list[Row]:
    """All rows of a table as Python's values; what Python cannot hold is text."""
    names = table.column_names
    columns = [_plain_values(column) for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain_values(column: pa.ChunkedArray) -> list[Any]:
    try:
        return list(column.to_pylist())
    except _NO_VALUE:
        return [_plain(value) for value in column]


def _plain(value: Any) -> Any:
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


def _text(part: pa.RecordBatch) -> str:
    try:
        return str(part)
    except _NO_VALUE:
        return NOT_READABLE
