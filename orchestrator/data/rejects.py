"""Checks of rows that all data sets share, and the table of rejects.

A check raises ``BadRow`` with the reason; readers of rows convert it to a ``Reject``, so that a bad
row neither stops a run nor disappears. Independent of data sets, tokenizers and models.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.records import Reject

CONTENT_CHARACTERS = 500  # characters of a rejected row that the table stores
DUPLICATE = "duplicate row"
EQUAL_RESPONSES = "chosen and rejected are equal"
TOO_LONG = "too long for"  # begins the reasons of texts that exceed a context
SCHEMA = pa.schema(
    {"source": pa.string(), "row": pa.int64(), "reason": pa.string(), "content": pa.string()}
)


class BadRow(ValueError):
    """A row is rejected; the message is the reason, without the row's content."""


class Seen:
    """Detects duplicates by content, with 16 bytes per row.

    Args:
        reason: reason for the rejects of duplicates.
    """

    def __init__(self, reason: str = DUPLICATE) -> None:
        self._digests: set[bytes] = set()
        self._reason = reason

    def check(self, *parts: str) -> None:
        """Raise BadRow if the same ``parts`` were checked before."""
        digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()
        if digest in self._digests:
            raise BadRow(self._reason)
        self._digests.add(digest)


def field(row: Mapping[str, object], name: str) -> object:
    """Return a field of a row; raise BadRow if it is missing or null."""
    value = row.get(name)
    if value is None:
        raise BadRow(f"missing field: {name}")
    return value


def text(name: str, value: object) -> str:
    """Return ``value`` if it is text without lone surrogates and NUL; else raise BadRow."""
    if not isinstance(value, str):
        raise BadRow(f"wrong type: {name} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"invalid unicode: {name}") from None
    if "\0" in value:
        raise BadRow(f"NUL character: {name}")
    return value


def response(name: str, value: object) -> str:
    """Return ``value`` if it is text that is not only white space; else raise BadRow."""
    if not text(name, value).strip():
        raise BadRow(f"empty response: {name}")
    return str(value)


def check_different(chosen: str, rejected: str) -> None:
    """Raise BadRow if two responses are equal up to outer white space."""
    if chosen.strip() == rejected.strip():
        raise BadRow(EQUAL_RESPONSES)


def prompt_too_long(
    tokens: int, reader: str, context: int, response: int, closing: int
) -> str | None:
    """Return the reason to reject a prompt that leaves too few tokens of a context, else None.

    Args:
        tokens: tokens of the prompt.
        reader: the model that reads it.
        context: context length of the model.
        response: tokens that are reserved for the response.
        closing: tokens that are reserved for the closing tokens of the model's template.
    """
    limit, reserved = max(context - response - closing, 0), response + closing
    if tokens <= limit:
        return None
    use = "the response and the closing tokens" if closing else "the response"
    return (
        f"prompt {TOO_LONG} {reader}: more than {limit} tokens; its context is {context}, of"
        f" which {reserved} are reserved for {use}"
    )


def conversation_too_long(tokens: int, reader: str, context: int, closing: int = 0) -> str | None:
    """Return the reason to reject a prompt with its response that does not fit, else None.

    Args:
        tokens: tokens of prompt and response together.
        reader: the model that reads them.
        context: context length of the model.
        closing: tokens of it that are reserved for the closing tokens of the model's template.
    """
    if tokens <= context - closing:
        return None
    reason = f"{TOO_LONG} {reader}: prompt and response take more than {context - closing} tokens"
    if not closing:
        return reason
    return (
        f"{reason}; its context is {context}, of which {closing} are reserved for the closing"
        " tokens"
    )


def is_too_long(reason: str) -> bool:
    """Return whether a text was rejected because it exceeds a context."""
    return reason.removeprefix("prompt ").startswith(TOO_LONG)


def make_reject(source: str, row: int, reason: str, content: object) -> Reject:
    """Return the reject of a row; ``content`` is its text, its bytes or its parsed object."""
    return Reject(source, row, reason, _shown(content))


def reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """Count rejects by reason, most frequent first, ties by name."""
    counts = Counter(reject.reason for reject in rejects)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def write_rejects(path: str | Path, rejects: Iterable[Reject]) -> None:
    """Write the table (source, row, reason, content) to Parquet, even if it is empty.

    ``path`` is a file or an fsspec URI; missing folders are created.
    """
    rows = [
        {"source": r.source, "row": r.row, "reason": r.reason, "content": _shown(r.content)}
        for r in rejects
    ]
    with fsspec.open(str(path), "wb", auto_mkdir=True) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file)


def _shown(content: object) -> str:
    """Return the first characters of a row as text that every file format can store."""
    if isinstance(content, bytes):
        shown = content.decode(errors="backslashreplace")
    elif isinstance(content, str):
        shown = content
    else:
        try:
            shown = json.dumps(content, ensure_ascii=False, default=str)
        except (RecursionError, ValueError, TypeError):
            shown = f"<a {type(content).__name__} that JSON cannot show>"
    shortened = shown[:CONTENT_CHARACTERS].encode(errors="backslashreplace").decode()
    return shortened[:CONTENT_CHARACTERS]
