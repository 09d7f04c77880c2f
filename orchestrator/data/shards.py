"""A file of rows cut into numbered parts of equally many rows, each read by itself.

The cut is found in one streaming pass that also finds the columns' types; a part of a JSONL file is
then a range of its bytes, one of a Parquet file a range of its rows. What cannot be read from the
middle (gzip, huge row groups) is first unpacked into a file beside the output. Knows nothing of
what the rows mean.
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
from orchestrator.data.parquet_shards import part_table, regroup
from orchestrator.data.rejects import BadRow, refuse
from orchestrator.data.rows import PARQUET_ROWS, Row, Unreadable, batch_rows, json_row
from orchestrator.records import Reject

MOST_PARTS = 4_096  # a part costs its driver some 15 KiB: larger files have larger parts
LARGE_GROUP = 16  # parts in one row group from which on it is unpacked: each would read all of it


@dataclass(frozen=True)
class Part:
    """Rows of a file: ``first`` is the number of the first one (from 1).

    ``start`` and ``stop`` are bytes of a JSONL file, rows of a Parquet file.
    """

    number: int
    first: int
    start: int
    stop: int


@dataclass(frozen=True)
class PartedFile:
    """A file and its parts.

    Attributes:
        source: the file as its user names it.
        place: where its rows are read: the file itself, or an unpacked copy.
        rows: how many there are; blank lines of a JSONL file are none.
        bytes: of all rows, unpacked.
        columns: what of the rows is kept, and as which types.
        parts: in order; together all rows.
        used: the columns of a Parquet file that are parsed; the others are copied as they are.
    """

    source: str
    place: str
    rows: int
    bytes: int
    columns: Columns
    parts: tuple[Part, ...]
    used: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartRows:
    """The rows of a part: those that ``parse`` took with what it made of them, the others refused.

    ``table`` holds the columns that are kept, row i that of ``numbers[i]`` and ``parsed[i]``. A row
    of ``Several`` is there once for each item.
    """

    numbers: list[int]
    table: pa.Table
    parsed: list[object]
    rejects: list[Reject]


@dataclass(frozen=True)
class Several:
    """What is parsed of a row that stands for several: each an item, or the reason against it."""

    items: tuple[object, ...]


Parse = Callable[[int, Row], object]  # raises BadRow; Several for more rows than one


def cut_in_parts(
    source: str,
    rows: int,
    parse: Parse,
    folder: Path,
    fields: Collection[str] | None = None,
    as_text: bool = False,
) -> PartedFile:
    """Finds the parts of a file, ``rows`` rows each (more where that were more than MOST_PARTS).

    Args:
        source: JSONL, gzipped or not, or Parquet; a file or an fsspec URI that exists.
        rows: lines of a JSONL file, blank ones too.
        parse: rows for which it raises BadRow have no say in the columns' types.
        folder: where an unpacked copy goes, if one is needed.
        fields: those that ``parse`` may look at; None: any.
        as_text: whether rows are kept as the text of JSON objects, each value of its own type.

    Raises:
        BadFile: the file is damaged, or of another form.
    """
    if source.endswith(".parquet"):
        return _cut_parquet(source, rows, folder, fields, as_text)
    return _cut_lines(source, rows, parse, folder, as_text)


def check_usable(file: PartedFile, parse: Parse) -> None:
    """Reads until a row that can be used.

    Raises:
        BadFile: there is none; the message has the reason of the first row, and the columns.
    """
    first: Reject | None = None
    for part in file.parts:
        found = read_part(file, part, parse)
        if found.parsed:
            return
        first = first or next(iter(found.rejects), None)
    raise none_usable(
        file.source, file.rows, first.reason if first else "", first.row if first else 0
    )


def read_part(file: PartedFile, part: Part, parse: Parse) -> PartRows:
    """Reads one part."""
    if file.source.endswith(".parquet"):
        return _read_rows(file, part, parse)
    numbers, kept, parsed, rejects = [], [], [], []
    with fsspec.open(file.place, "rb") as stream:
        stream.seek(part.start)
        lines = stream.read(part.stop - part.start).split(b"\n")
    for number, line in enumerate(lines, start=part.first):
        if not line.strip():
            continue
        row = json_row(line)
        if isinstance(row, str):
            rejects.append(refuse(file.source, number, row, line.rstrip()))
            continue
        for item in _items(parse, number, row):
            if isinstance(item, BadRow):
                rejects.append(refuse(file.source, number, str(item), row))
                continue
            numbers.append(number)
            kept.append(row)
            parsed.append(item)
    return PartRows(numbers, file.columns.table(kept), parsed, rejects)


def _items(parse: Parse, number: int, row: Row) -> tuple[object, ...]:
    """What a row gives, or the reason why it gives nothing."""
    try:
        parsed = parse(number, row)
    except BadRow as bad:
        return (bad,)
    return parsed.items if isinstance(parsed, Several) else (parsed,)


def _cut_lines(source: str, rows: int, parse: Parse, folder: Path, as_text: bool) -> PartedFile:
    """Every ``rows``-th line begins a part."""
    packed = source.endswith(".gz")
    place = str(folder / "unpacked.jsonl") if packed else source
    columns, starts, position, count = Columns(as_text=as_text), [], 0, 0
    with open(place, "wb") if packed else nullcontext() as copy:
        for number, line in json_lines(source):
            if (number - 1) % rows == 0:
                starts.append(position)
            position += len(line)
            if copy is not None:
                copy.write(line)
            if line.strip():
                count += 1
                _learn(columns, number, line, parse)
    columns.learn_rest()
    step = _stride(len(starts))
    edges = [*starts[::step], position]
    parts = tuple(Part(i, 1 + i * step * rows, *edge) for i, edge in enumerate(pairwise(edges)))
    return PartedFile(source, place, count, position, columns, parts)


def _learn(columns: Columns, number: int, line: bytes, parse: Parse) -> None:
    row = json_row(line)
    if isinstance(row, dict):
        try:
            parse(number, row)
        except BadRow:
            return
        columns.learn(row)


def _cut_parquet(
    source: str, rows: int, folder: Path, fields: Collection[str] | None, as_text: bool
) -> PartedFile:
    place = source
    with fsspec.open(source, "rb") as stream, reading(source):
        file = parquet_file(stream, source)
        schema, count = file.schema_arrow, file.metadata.num_rows
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        lengths = [group.num_rows for group in groups]
        size = sum(group.total_byte_size for group in groups)
    if sum(lengths) != count or any(length < 0 for length in lengths):
        raise BadFile(source, f"is damaged: {count} rows by its footer, {lengths} by row groups")
    used_columns(source, schema.names, None)  # all are kept, none is there twice
    used = tuple(used_columns(source, schema.names, fields))
    columns = Columns.of(schema, as_text)
    rows *= _stride(-(-count // rows))
    if max(lengths, default=0) > LARGE_GROUP * rows:
        place = str(folder / "unpacked.parquet")
        regroup(source, place, rows)
    starts = range(0, max(count, 1), rows)  # a file without rows has a part too
    parts = tuple(Part(i, 1 + s, s, min(s + rows, count)) for i, s in enumerate(starts))
    return PartedFile(source, place, count, size, columns, parts, used)


def _stride(parts: int) -> int:
    """How many of so many parts become one."""
    return max(-(-parts // MOST_PARTS), 1)


def _read_rows(file: PartedFile, part: Part, parse: Parse) -> PartRows:
    table = part_table(
        file.place, file.source, file.columns.names, part.first, part.start, part.stop
    )
    numbers, places, parsed, rejects = [], [], [], []
    batches = table.select(list(file.used)).to_batches(PARQUET_ROWS)
    rows = (row for batch in batches for row in batch_rows(batch))
    for place, row in enumerate(rows):
        number = part.first + place
        if isinstance(row, Unreadable):
            rejects.append(refuse(file.source, number, row.reason, row.content))
            continue
        for item in _items(parse, number, row):
            if isinstance(item, BadRow):
                rejects.append(refuse(file.source, number, str(item), row))
                continue
            parsed.append(item)
            numbers.append(number)
            places.append(place)
    kept = file.columns.kept(table.take(pa.array(places, pa.int64())))
    return PartRows(numbers, kept, parsed, rejects)
