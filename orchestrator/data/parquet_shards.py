"""Reading row ranges of Parquet files, and rewriting files with smaller row groups.

Independent of the meaning of the rows.
"""

from collections.abc import Sequence

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.data.files import BadFile, parquet_file, reading

_BUFFER_BYTES = 1 << 20  # of a column chunk in memory while a large row group is split


def shard_table(
    path: str, source: str, names: Sequence[str], first: int, start: int, stop: int
) -> pa.Table:
    """Read the rows from ``start`` to before ``stop``, with all columns.

    Args:
        path: the file that is read.
        source: the file as the user named it.
        names: names of all columns.
        first: number of the first row, from 1, for messages.
        start: index in the file, from 0.
        stop: index in the file, exclusive.

    Raises:
        BadFile: columns are damaged; the message names them.
    """
    with fsspec.open(path, "rb") as stream:
        file = parquet_file(stream, source)
        try:
            with reading(source, f", rows {first} to {first + stop - start - 1}"):
                table = _slice(file, start, stop, None)
                if table.num_rows != stop - start:
                    raise ValueError(f"{table.num_rows} rows instead of {stop - start}")
                return table
        except BadFile as error:
            damaged = [name for name in names if not _is_readable(file, start, stop, name)]
            more = f" (damaged columns: {', '.join(damaged)})" if damaged else ""
            raise BadFile(source, error.reason + more) from error


def regroup(source: str, copy: str, rows_per_group: int) -> None:
    """Write a copy of a file with smaller row groups, with few pages in memory.

    Raises:
        BadFile: it is damaged.
    """
    with fsspec.open(source, "rb") as stream:
        file = parquet_file(stream, source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        with reading(source), pq.ParquetWriter(copy, file.schema_arrow) as writer:
            for batch in file.iter_batches(rows_per_group, use_threads=False):
                writer.write_batch(batch, row_group_size=rows_per_group)


def _slice(file: pq.ParquetFile, start: int, stop: int, columns: list[str] | None) -> pa.Table:
    """Read a range of rows from the row groups that hold it."""
    groups: list[int] = []
    first = end = 0
    for group in range(file.metadata.num_row_groups):
        begin, end = end, end + file.metadata.row_group(group).num_rows
        if end > start and begin < stop:
            first = begin if not groups else first
            groups.append(group)
    return file.read_row_groups(groups, columns).slice(start - first, stop - start)


def _is_readable(file: pq.ParquetFile, start: int, stop: int, name: str) -> bool:
    try:
        with reading(""):
            _slice(file, start, stop, [name])
    except BadFile:
        return False
    return True
