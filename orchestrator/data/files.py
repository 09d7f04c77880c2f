"""Files of rows, opened: what is damaged or of another form ends with one sentence.

The sentence says which file, how far it was read and what was found in it. Knows nothing of what
the rows mean.
"""

import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

PARQUET = ".parquet"
NAMES_SHOWN = 20  # columns that a message names
ROWS_LOOKED_AT = 100  # for the columns of JSON rows
# What a damaged file raises, of gzip and of Parquet. Arrow's own are none of Python's at times.
_DAMAGED = (OSError, EOFError, zlib.error)
_NOT_PARQUET = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
_ARRAY = "a JSON array, valid is one object a line (`jq -c '.[]'` writes it so)"
_INDENTED = "JSON over several lines, valid is one object a line (`jq -c .` writes it so)"


class BadFile(ValueError):
    """A file whose rows cannot be read.

    Attributes:
        source: the file as its user names it.
        why: what is wrong, with what was found and what is valid.
    """

    def __init__(self, source: str, why: str) -> None:
        super().__init__(source, why)  # as it is sent to other processes
        self.source, self.why = source, why

    def __str__(self) -> str:
        return f"{self.source}: {self.why}"


def json_lines(source: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, unpacked.

    Raises:
        BadFile: it is damaged, or begins as one JSON document of several lines.
    """
    number, begun = 0, False
    try:
        with fsspec.open(source, "rb", compression="infer") as lines:
            for number, line in enumerate(lines, start=1):
                if not begun and (begun := bool(line.strip())) and (form := _document(line)):
                    raise BadFile(source, form)
                yield number, line
    except _DAMAGED as error:
        raise BadFile(source, f"cannot be read behind line {number}: {_reason(error)}") from error


def parquet_file(stream: Any, source: str, **options: Any) -> pq.ParquetFile:
    """A Parquet file, whose pages are checked where their writer left checksums.

    Raises:
        BadFile: it is none, or is damaged.
    """
    with reading(source):
        return pq.ParquetFile(stream, page_checksum_verification=True, **options)


@contextmanager
def reading(source: str, where: str = "") -> Iterator[None]:
    """Turns what Arrow raises of a damaged file into one sentence.

    Raises:
        BadFile: of the block.
    """
    try:
        yield
    except BadFile:
        raise
    except _NOT_PARQUET as error:
        raise BadFile(source, f"cannot be read as Parquet{where}: {_reason(error)}") from error


def used_columns(source: str, names: Sequence[str], fields: Collection[str] | None) -> list[str]:
    """The columns of a Parquet file that are read, of all where ``fields`` is None.

    Raises:
        BadFile: there is none, or one of them is there twice.
    """
    used = [name for name in names if fields is None or name in fields]
    if twice := [name for name, count in Counter(used).items() if count > 1]:
        raise BadFile(source, f"has several columns named {twice[0]!r}; {shown(names)}")
    if not used:
        raise BadFile(source, f"has no column that is read; {shown(names)}")
    return used


def none_usable(source: str, rows: int, reason: str, row: int) -> BadFile:
    """The error for a file of which no row can be used; ``reason`` is the first one's."""
    if not rows:
        return BadFile(source, f"has no rows; {found_in(source)}")
    return BadFile(
        source, f"none of its {rows:,} rows can be used; row {row}: {reason}; {found_in(source)}"
    )


def found_in(source: str) -> str:
    """The columns of a file, and what it is where it is no file of JSON lines, for a message."""
    form = "" if source.endswith(PARQUET) else _form(source)
    return shown(columns_found(source)) + (f"; it is {form}" if form else "")


def columns_found(source: str) -> list[str]:
    """The names of a file's columns, of JSON rows those of the first ones."""
    if source.endswith(PARQUET):
        with fsspec.open(source, "rb") as stream:
            return list(parquet_file(stream, source).schema_arrow.names)
    names: dict[str, None] = {}
    for _, line in islice(json_lines(source), ROWS_LOOKED_AT):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        names |= dict.fromkeys(row if isinstance(row, dict) else ())
    return list(names)


def shown(names: Sequence[str]) -> str:
    """Columns as a message names them."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    listed = ", ".join(str(name)[:60] for name in names[:NAMES_SHOWN])
    return f"columns found: {listed or 'none'}{more}"


def _document(line: bytes) -> str:
    """What a file is whose first line with text is this one; empty for JSON lines."""
    text = line.decode("utf-8-sig", errors="replace").strip()
    if text == "{":
        return _INDENTED
    # A complete array on one line is a row that is none; the others are read.
    return _ARRAY if text.startswith("[") and text[-1] in "[{," else ""


def _form(source: str) -> str:
    """What a file of one line is, or nothing."""
    first = next((line for _, line in json_lines(source) if line.strip()), b"")
    return _ARRAY if first.decode("utf-8-sig", errors="replace").lstrip().startswith("[") else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "its compressed data end too early, as of a file that was cut off"
    if isinstance(error, zlib.error):
        return "its compressed data are damaged"
    text = (getattr(error, "strerror", None) or str(error)).strip()
    return text.splitlines()[0].rstrip(". ") if text else type(error).__name__
