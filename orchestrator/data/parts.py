"""A file of rows cut into numbered parts of equally many rows, each read by itself.

The cut is found in one streaming pass that also finds the columns' types; a part of a JSONL file is
then a range of its bytes, one of a Parquet file a range of its rows. What cannot be read from the
middle (gzip, huge row groups) is first unpacked into a file beside the output. Knows nothing of
what the rows mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.columns import Columns
from orchestrator.data.rejects import BadRow, refuse
from orchestrator.data.rows import NOT_UTF8, PARQUET_ROWS, Row, batch_rows, json_row
from orchestrator.records import Reject

MOST_PARTS = 4_096  # a part costs its driver some 15 KiB: larger files have larger parts
LARGE_GROUP = 16  # parts in one row group from which on it is unpacked: each would read all of it
_PAGES = 1 << 20  # bytes of a column chunk in memory while a large row group is unpacked


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
    """

    source: str
    place: str
    rows: int
    bytes: int
    columns: Columns
    parts: tuple[Part, ...]


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


def cut_in_parts(source: str, rows: int, parse: Parse, folder: Path) -> PartedFile:
    """Finds the parts of a file, ``rows`` rows each (more where that were more than MOST_PARTS).

    Args:
        source: JSONL, gzipped or not, or Parquet; a file or an fsspec URI that exists.
        rows: lines of a JSONL file, blank ones too.
        parse: rows for which it raises BadRow have no say in the columns' types.
        folder: where an unpacked copy goes, if one is needed.
    """
    if source.endswith(".parquet"):
        return _cut_parquet(source, rows, folder)
    return _cut_lines(source, rows, parse, folder)


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


def _cut_lines(source: str, rows: int, parse: Parse, folder: Path) -> PartedFile:
    """Every ``rows``-th line begins a part."""
    packed = source.endswith(".gz")
    place = str(folder / "unpacked.jsonl") if packed else source
    columns, starts, position, number, count = Columns(), [], 0, 0, 0
    with fsspec.open(source, "rb", compression="infer") as lines:
        copy = open(place, "wb") if packed else None  # noqa: SIM115
        for number, line in enumerate(lines):
            if number % rows == 0:
                starts.append(position)
            position += len(line)
            if copy is not None:
                copy.write(line)
            if line.strip():
                count += 1
                _learn(columns, number + 1, line, parse)
        if copy is not None:
            copy.close()
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


def _cut_parquet(source: str, rows: int, folder: Path) -> PartedFile:
    place = source
    with fsspec.open(source, "rb") as stream:
        file = pq.ParquetFile(stream)
        count, groups = file.metadata.num_rows, file.metadata.num_row_groups
        rows *= _stride(-(-count // rows))
        largest = max((file.metadata.row_group(i).num_rows for i in range(groups)), default=0)
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(groups))
        columns = Columns.of(file.schema_arrow)
    if largest > LARGE_GROUP * rows:
        place = str(folder / "unpacked.parquet")
        _regroup(source, place, rows)
    starts = range(0, max(count, 1), rows)  # a file without rows has a part too
    parts = tuple(Part(i, 1 + s, s, min(s + rows, count)) for i, s in enumerate(starts))
    return PartedFile(source, place, count, size, columns, parts)


def _regroup(source: str, place: str, rows: int) -> None:
    """Writes the file again with a row group a part, a few pages in memory at a time."""
    with fsspec.open(source, "rb") as stream:
        file = pq.ParquetFile(stream, buffer_size=_PAGES, pre_buffer=False)
        with pq.ParquetWriter(place, file.schema_arrow) as writer:
            for batch in file.iter_batches(rows, use_threads=False):
                writer.write_batch(batch, row_group_size=rows)


def _stride(parts: int) -> int:
    """How many of so many parts become one."""
    return max(-(-parts // MOST_PARTS), 1)


def _read_rows(file: PartedFile, part: Part, parse: Parse) -> PartRows:
    with fsspec.open(file.place, "rb") as stream:
        table = _slice(pq.ParquetFile(stream), part)
    numbers, places, parsed, rejects = [], [], [], []
    rows = (row for batch in table.to_batches(PARQUET_ROWS) for row in batch_rows(batch))
    for place, row in enumerate(rows):
        number = part.first + place
        if not isinstance(row, dict):
            rejects.append(refuse(file.source, number, NOT_UTF8, str(row)))
            continue
        for item in _items(parse, number, row):
            if isinstance(item, BadRow):
                rejects.append(refuse(file.source, number, str(item), row))
                continue
            parsed.append(item)
            numbers.append(number)
            places.append(place)
    kept = table.take(pa.array(places, pa.int64()))
    return PartRows(numbers, kept, parsed, rejects)


def _slice(file: pq.ParquetFile, part: Part) -> pa.Table:
    """The rows of a part, of the row groups that hold them."""
    groups: list[int] = []
    first = end = 0
    for group in range(file.metadata.num_row_groups):
        start, end = end, end + file.metadata.row_group(group).num_rows
        if end > part.start and start < part.stop:
            first = start if not groups else first
            groups.append(group)
    return file.read_row_groups(groups).slice(part.start - first, part.stop - part.start)
