"""Opening files of rows; a damaged file or another format is an error of one sentence.

The message says which file, how far it was read and which columns it has. Independent of the
meaning of the rows.
"""

import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

PARQUET = ".parquet"
NAMES_SHOWN = 20  # columns in a message
ROWS_SAMPLED = 100  # rows that are read to find the columns of JSON files
# Exceptions of damaged files, gzip and Parquet. Arrow's are not always Python's.
_DAMAGED = (OSError, EOFError, zlib.error)
_NOT_PARQUET = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
_ARRAY = "a JSON array, valid is one object a line (`jq -c '.[]'` writes it so)"
_INDENTED = "JSON over several lines, valid is one object a line (`jq -c .` writes it so)"


class BadFile(ValueError):
    """A file's rows cannot be read.

    Attributes:
        source: the file as the user named it.
        reason: what is wrong and what is valid.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)  # both arguments, so that it can be pickled
        self.source, self.reason = source, reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


def json_lines(source: str) -> Iterator[tuple[int, bytes]]:
    """Yield the decompressed lines of a file with their numbers from 1.

    Raises:
        BadFile: it is damaged, or is one JSON document over several lines.
    """
    number, has_text = 0, False
    try:
        with fsspec.open(source, "rb", compression="infer") as lines:
            for number, line in enumerate(lines, start=1):
                if not has_text and (has_text := bool(line.strip())) and (form := _document(line)):
                    raise BadFile(source, form)
                yield number, line
    except _DAMAGED as error:
        raise BadFile(source, f"cannot be read after line {number}: {_reason(error)}") from error


def parquet_file(stream: IO[bytes], source: str, **options: object) -> pq.ParquetFile:
    """Open a Parquet file; pages with checksums are verified.

    Raises:
        BadFile: it is not a Parquet file, or is damaged.
    """
    with reading(source):
        return pq.ParquetFile(stream, page_checksum_verification=True, **options)


@contextmanager
def reading(source: str, where: str = "") -> Iterator[None]:
    """Convert Arrow's exceptions for a damaged file to a BadFile.

    Raises:
        BadFile: the block failed.
    """
    try:
        yield
    except BadFile:
        raise
    except _NOT_PARQUET as error:
        raise BadFile(source, f"cannot be read as Parquet{where}: {_reason(error)}") from error


def used_columns(source: str, names: Sequence[str], fields: Collection[str] | None) -> list[str]:
    """Return the columns of a Parquet file to read: those in ``fields``, or all if None.

    Raises:
        BadFile: there is none, or one of them occurs twice.
    """
    used = [name for name in names if fields is None or name in fields]
    if duplicates := [name for name, count in Counter(used).items() if count > 1]:
        raise BadFile(source, f"has several columns named {duplicates[0]!r}; {shown(names)}")
    if not used:
        valid = f"valid: {', '.join(sorted(fields))}; " if fields else ""
        raise BadFile(source, f"has none of the columns that are read; {valid}{shown(names)}")
    return used


def none_usable(source: str, rows: int, reason: str, row: int) -> BadFile:
    """Return the error for a file without usable rows; ``reason`` is that of row ``row``."""
    if not rows:
        return BadFile(source, f"has no rows; {describe_columns(source)}")
    return BadFile(
        source,
        f"none of its {rows:,} rows can be used; row {row}: {reason}; {describe_columns(source)}",
    )


def describe_columns(source: str) -> str:
    """Return a clause for a message: the columns of a file, and its format if not JSON lines."""
    form = "" if source.endswith(PARQUET) else _form(source)
    return shown(column_names(source)) + (f"; it is {form}" if form else "")


def column_names(source: str) -> list[str]:
    """Return the names of a file's columns; of JSON files those of the first rows."""
    if source.endswith(PARQUET):
        with fsspec.open(source, "rb") as stream:
            return list(parquet_file(stream, source).schema_arrow.names)
    names: dict[str, None] = {}
    for _, line in islice(json_lines(source), ROWS_SAMPLED):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        names |= dict.fromkeys(row if isinstance(row, dict) else ())
    return list(names)


def shown(names: Sequence[str]) -> str:
    """Return column names for a message."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    listed = ", ".join(str(name)[:60] for name in names[:NAMES_SHOWN])
    return f"columns found: {listed or 'none'}{more}"


def _document(line: bytes) -> str:
    """Return the format of a file by its first nonblank line; empty for JSON lines."""
    text = line.decode("utf-8-sig", errors="replace").strip()
    if text == "{":
        return _INDENTED
    # A complete array on one line is a rejected row; the other lines are read.
    return _ARRAY if text.startswith("[") and text[-1] in "[{," else ""


def _form(source: str) -> str:
    """Return the format of a file of one line, or nothing."""
    first = next((line for _, line in json_lines(source) if line.strip()), b"")
    return _ARRAY if first.decode("utf-8-sig", errors="replace").lstrip().startswith("[") else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "its compressed data end too early, as in a truncated file"
    if isinstance(error, zlib.error):
        return "its compressed data are damaged"
    text = (getattr(error, "strerror", None) or str(error)).strip()
    return text.splitlines()[0].rstrip(". ") if text else type(error).__name__
