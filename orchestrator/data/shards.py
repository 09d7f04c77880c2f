"""Splitting a file of rows into shards of equally many rows, each of which is read on its own.

One streaming pass finds the shards and the columns' types. A shard of a JSONL file is a range of
bytes, one of a Parquet file a range of rows. Files without random access (gzip, huge row groups)
are first unpacked into a copy beside the output. Independent of the meaning of the rows.
"""

from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import fsspec
import pyarrow as pa

from orchestrator.data.columns import Columns
from orchestrator.data.files import (
    BadFile,
    json_lines,
    none_usable,
    parquet_file,
    reading,
    used_columns,
)
from orchestrator.data.parquet_shards import regroup, shard_table
from orchestrator.data.rejects import BadRow, make_reject
from orchestrator.data.rows import PARQUET_ROWS, Row, Unreadable, batch_rows, json_row
from orchestrator.records import Reject

MAX_SHARDS = 4_096  # a shard costs the driver about 15 KiB: larger files have larger shards
LARGE_GROUP = 16  # shards of one row group; with more it is split, as each shard reads all of it


@dataclass(frozen=True)
class InputShard:
    """A range of rows.

    Attributes:
        index: index of the shard, from 0.
        first: number of the first row, from 1.
        start: offset of the first row: in bytes in a JSONL file, in rows in a Parquet file.
        stop: offset after the last row.
    """

    index: int
    first: int
    start: int
    stop: int


@dataclass(frozen=True)
class ShardedFile:
    """A file and its shards.

    Attributes:
        source: the file as the user named it.
        path: the file that is read: the source, or an unpacked copy.
        rows: number of rows, without blank lines of a JSONL file.
        bytes: size in bytes of all rows, unpacked.
        columns: names and types of the stored columns.
        shards: in order; together all rows.
        used: the columns of a Parquet file that are parsed; the others are copied unchanged.
    """

    source: str
    path: str
    rows: int
    bytes: int
    columns: Columns
    shards: tuple[InputShard, ...]
    used: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShardRows:
    """The rows of a shard: the parsed ones with their results, and the rejects.

    ``table`` holds the stored columns; its row i is row ``numbers[i]`` of the file with the result
    ``parsed[i]``. A row of ``MultipleItems`` occurs once per item.
    """

    numbers: list[int]
    table: pa.Table
    parsed: list[object]
    rejects: list[Reject]


@dataclass(frozen=True)
class MultipleItems:
    """Results of a row with several items: each an item, or a BadRow with the reason against it."""

    items: tuple[object, ...]


Parse = Callable[[int, Row], object]  # raises BadRow; returns MultipleItems for several items


def split_into_shards(
    source: str,
    rows: int,
    parse: Parse,
    folder: Path,
    fields: Collection[str] | None = None,
    as_text: bool = False,
) -> ShardedFile:
    """Split a file into shards of ``rows`` rows, or more to have at most MAX_SHARDS shards.

    Args:
        source: JSONL, gzipped or not, or Parquet; a file or an fsspec URI that exists.
        rows: per shard; lines of a JSONL file, including blank ones.
        parse: rows for which it raises BadRow do not affect the columns' types.
        folder: folder of an unpacked copy, if one is needed.
        fields: those that ``parse`` reads; None: any.
        as_text: whether rows are stored as JSON text, which preserves each value's type.

    Raises:
        BadFile: the file is damaged, or of another format.
    """
    if source.endswith(".parquet"):
        return _split_parquet(source, rows, folder, fields, as_text)
    return _split_lines(source, rows, parse, folder, as_text)


def check_usable(file: ShardedFile, parse: Parse) -> None:
    """Check that a file has a usable row, reading up to the first one.

    Raises:
        BadFile: it has none; the message has the reason of the first row, and the columns.
    """
    first: Reject | None = None
    for shard in file.shards:
        rows = read_shard(file, shard, parse)
        if rows.parsed:
            return
        first = first or next(iter(rows.rejects), None)
    raise none_usable(
        file.source, file.rows, first.reason if first else "", first.row if first else 0
    )


def read_shard(file: ShardedFile, shard: InputShard, parse: Parse) -> ShardRows:
    """Read one shard.

    Raises:
        BadFile: the shard is damaged.
    """
    if file.source.endswith(".parquet"):
        return _read_parquet(file, shard, parse)
    numbers, rows, parsed, rejects = [], [], [], []
    with fsspec.open(file.path, "rb") as stream:
        stream.seek(shard.start)
        lines = stream.read(shard.stop - shard.start).split(b"\n")
    for number, line in enumerate(lines, start=shard.first):
        if not line.strip():
            continue
        row = json_row(line)
        if isinstance(row, str):
            rejects.append(make_reject(file.source, number, row, line.rstrip()))
            continue
        for item in _items(parse, number, row):
            if isinstance(item, BadRow):
                rejects.append(make_reject(file.source, number, str(item), row))
                continue
            numbers.append(number)
            rows.append(row)
            parsed.append(item)
    return ShardRows(numbers, file.columns.table(rows), parsed, rejects)


def _items(parse: Parse, number: int, row: Row) -> tuple[object, ...]:
    """Return the parsed items of a row, or the reason against it."""
    try:
        parsed = parse(number, row)
    except BadRow as bad:
        return (bad,)
    return parsed.items if isinstance(parsed, MultipleItems) else (parsed,)


def _split_lines(source: str, rows: int, parse: Parse, folder: Path, as_text: bool) -> ShardedFile:
    """Split a JSONL file: every ``rows``-th line begins a shard."""
    packed = source.endswith(".gz")
    path = str(folder / "unpacked.jsonl") if packed else source
    columns, starts, position, count = Columns(as_text=as_text), [], 0, 0
    with open(path, "wb") if packed else nullcontext() as copy:
        for number, line in json_lines(source):
            if (number - 1) % rows == 0:
                starts.append(position)
            position += len(line)
            if copy is not None:
                copy.write(line)
            if line.strip():
                count += 1
                _learn(columns, number, line, parse)
    columns.finish()
    step = _stride(len(starts))
    edges = [*starts[::step], position]
    shards = tuple(
        InputShard(i, 1 + i * step * rows, *edge) for i, edge in enumerate(pairwise(edges))
    )
    return ShardedFile(source, path, count, position, columns, shards)


def _learn(columns: Columns, number: int, line: bytes, parse: Parse) -> None:
    row = json_row(line)
    if isinstance(row, dict):
        try:
            parse(number, row)
        except BadRow:
            return
        columns.learn(row)


def _split_parquet(
    source: str, rows: int, folder: Path, fields: Collection[str] | None, as_text: bool
) -> ShardedFile:
    path = source
    with fsspec.open(source, "rb") as stream, reading(source):
        file = parquet_file(stream, source)
        schema, count = file.schema_arrow, file.metadata.num_rows
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        lengths = [group.num_rows for group in groups]
        size = sum(group.total_byte_size for group in groups)
    if sum(lengths) != count or any(length < 0 for length in lengths):
        raise BadFile(source, f"is damaged: {count} rows by its footer, {lengths} by row groups")
    used_columns(source, schema.names, None)  # all are stored; raises for duplicates
    used = tuple(used_columns(source, schema.names, fields))
    columns = Columns.of(schema, as_text)
    rows *= _stride(-(-count // rows))
    if max(lengths, default=0) > LARGE_GROUP * rows:
        path = str(folder / "unpacked.parquet")
        regroup(source, path, rows)
    starts = range(0, max(count, 1), rows)  # a file without rows has one shard
    shards = tuple(InputShard(i, 1 + s, s, min(s + rows, count)) for i, s in enumerate(starts))
    return ShardedFile(source, path, count, size, columns, shards, used)


def _stride(shards: int) -> int:
    """Return how many shards are merged into one to have at most MAX_SHARDS."""
    return max(-(-shards // MAX_SHARDS), 1)


def _read_parquet(file: ShardedFile, shard: InputShard, parse: Parse) -> ShardRows:
    table = shard_table(
        file.path, file.source, file.columns.names, shard.first, shard.start, shard.stop
    )
    numbers, indices, parsed, rejects = [], [], [], []
    batches = table.select(list(file.used)).to_batches(PARQUET_ROWS)
    rows = (row for batch in batches for row in batch_rows(batch))
    for index, row in enumerate(rows):
        number = shard.first + index
        if isinstance(row, Unreadable):
            rejects.append(make_reject(file.source, number, row.reason, row.content))
            continue
        for item in _items(parse, number, row):
            if isinstance(item, BadRow):
                rejects.append(make_reject(file.source, number, str(item), row))
                continue
            parsed.append(item)
            numbers.append(number)
            indices.append(index)
    stored = file.columns.stored(table.take(pa.array(indices, pa.int64())))
    return ShardRows(numbers, stored, parsed, rejects)
