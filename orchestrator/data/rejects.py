"""The checks that all data sets share, and the rejects table (what section 4 takes for granted).

A check raises ``BadRow`` with the reason; whoever reads rows turns that into a ``Reject``, so that
a bad row never stops a run and never disappears. Knows of no data set, tokenizer or model.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.records import Reject

CONTENT_CHARACTERS = 500  # of a refused row that the table shows: enough to find and judge it
DUPLICATE = "duplicate row"
EQUAL_RESPONSES = "chosen and rejected are equal"
SCHEMA = pa.schema(
    {"source": pa.string(), "row": pa.int64(), "reason": pa.string(), "content": pa.string()}
)


class BadRow(ValueError):
    """A row that is refused; its text is the reason, one of few, without the row's own content."""


class Seen:
    """What was read before, by content: 16 bytes a row.

    Args:
        reason: to refuse what comes again.
    """

    def __init__(self, reason: str = DUPLICATE) -> None:
        self._digests: set[bytes] = set()
        self._reason = reason

    def check(self, *parts: str) -> None:
        """Raises BadRow when the same ``parts`` came before."""
        digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()
        if digest in self._digests:
            raise BadRow(self._reason)
        self._digests.add(digest)


def field(row: Mapping[str, Any], name: str) -> Any:
    """The row's field; null counts as missing, since Parquet knows no other absence."""
    value = row.get(name)
    if value is None:
        raise BadRow(f"missing field: {name}")
    return value


def text(name: str, value: Any) -> str:
    """``value`` as text that can be stored and tokenized: no lone surrogate, no NUL."""
    if not isinstance(value, str):
        raise BadRow(f"wrong type: {name} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"invalid unicode: {name}") from None
    if "\0" in value:
        raise BadRow(f"NUL character: {name}")
    return value


def response(name: str, value: Any) -> str:
    """``value`` as a response: text that is more than white space."""
    if not text(name, value).strip():
        raise BadRow(f"empty response: {name}")
    return str(value)


def different(chosen: str, rejected: str) -> None:
    """Raises BadRow when two responses are the same up to outer white space."""
    if chosen.strip() == rejected.strip():
        raise BadRow(EQUAL_RESPONSES)


def too_long(prompt_ids_length: int, limit: int) -> str | None:
    """The reason to refuse a prompt of so many tokens where ``limit`` are allowed, else None.

    For later, where a tokenizer exists; ``limit`` is the context less the room for a response.
    """
    if prompt_ids_length <= limit:
        return None
    return f"prompt past the context: more than {limit} tokens"


def refuse(source: str, row: int, reason: str, content: Any) -> Reject:
    """The reject of a row; ``content`` is its text, its bytes or its parsed object."""
    return Reject(source, row, reason, _shown(content))


def reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """How many rows were refused for each reason, most frequent first, ties by name."""
    counts = Counter(reject.reason for reject in rejects)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def write_rejects(path: str | Path, rejects: Iterable[Reject]) -> None:
    """Writes the table (source, row, reason, content) to Parquet, an empty one too.

    ``path`` is a file or an fsspec URI; missing folders are made.
    """
    rows = [
        {"source": r.source, "row": r.row, "reason": r.reason, "content": _shown(r.content)}
        for r in rejects
    ]
    with fsspec.open(str(path), "wb", auto_mkdir=True) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file)


def _shown(content: Any) -> str:
    """The first characters of a row as text that every file format can hold."""
    if isinstance(content, bytes):
        content = content.decode(errors="backslashreplace")
    elif not isinstance(content, str):
        try:
            content = json.dumps(content, ensure_ascii=False, default=str)
        except (RecursionError, ValueError, TypeError):
            content = f"<a {type(content).__name__} that JSON cannot show>"
    kept = content[:CONTENT_CHARACTERS].encode(errors="backslashreplace").decode()
    return str(kept)[:CONTENT_CHARACTERS]
