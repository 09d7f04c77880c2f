"""Some rows of a Parquet file: read without the others, or regrouped so that they can be.

Knows nothing of what the rows mean.
"""

from collections.abc import Sequence

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.files import BadFile, parquet_file, reading

_PAGES = 1 << 20  # bytes of a column chunk in memory while a large row group is unpacked


def part_table(
    place: str, source: str, names: Sequence[str], first: int, start: int, stop: int
) -> pa.Table:
    """The rows from ``start`` to before ``stop`` with all columns.

    Args:
        place: where they are read.
        source: the file as its user names it.
        names: of all columns.
        first: the number of the first row, from 1.
        start: as is counted in the file, from 0.
        stop: likewise.

    Raises:
        BadFile: a column is damaged; the message names all that are.
    """
    with fsspec.open(place, "rb") as stream:
        file = parquet_file(stream, source)
        try:
            with reading(source, f", rows {first} to {first + stop - start - 1}"):
                table = _slice(file, start, stop, None)
                if table.num_rows != stop - start:
                    raise ValueError(f"{table.num_rows} rows instead of {stop - start}")
                return table
        except BadFile as error:
            damaged = [name for name in names if not _is_whole(file, start, stop, name)]
            more = f" (columns that are damaged: {', '.join(damaged)})" if damaged else ""
            raise BadFile(source, error.why + more) from error


def regroup(source: str, place: str, rows: int) -> None:
    """Writes the file again with so many rows in a row group, a few pages in memory at a time.

    Raises:
        BadFile: it is damaged.
    """
    with fsspec.open(source, "rb") as stream:
        file = parquet_file(stream, source, buffer_size=_PAGES, pre_buffer=False)
        with reading(source), pq.ParquetWriter(place, file.schema_arrow) as writer:
            for batch in file.iter_batches(rows, use_threads=False):
                writer.write_batch(batch, row_group_size=rows)


def _slice(file: pq.ParquetFile, start: int, stop: int, columns: list[str] | None) -> pa.Table:
    """Some rows, of the row groups that hold them."""
    groups: list[int] = []
    first = end = 0
    for group in range(file.metadata.num_row_groups):
        begin, end = end, end + file.metadata.row_group(group).num_rows
        if end > start and begin < stop:
            first = begin if not groups else first
            groups.append(group)
    return file.read_row_groups(groups, columns).slice(start - first, stop - start)


def _is_whole(file: pq.ParquetFile, start: int, stop: int, name: str) -> bool:
    try:
        with reading(""):
            _slice(file, start, stop, [name])
    except BadFile:
        return False
    return True
