"""Preference pairs (x, y_w, y_l) of section 3 from rows with ``prompt``, ``chosen``, ``rejected``.

Takes the common shapes: text or message lists, and conversations that hold the prompt themselves.
Knows nothing of any one data set, of tokens or of models.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.data.rejects import (
    BadRow,
    Seen,
    conversation,
    different,
    field,
    messages,
    response,
    text,
)
from orchestrator.data.rows import Row, file_stem, parsed_rows
from orchestrator.records import Message, PreferencePair, Prompt, Reject

HISTORIES_DIFFER = "the histories of chosen and rejected differ"
NOT_BY_THE_ASSISTANT = "wrong type: {} does not end with the assistant"
PROMPT_ID_BYTES = 8  # among 10 million prompts two share an id with a chance of 3 in a million

Conversations = tuple[tuple[Message, ...], str, str]  # prompt, chosen, rejected


def read_pairs(
    path: str | Path, parse: Callable[[Row], Conversations] | None = None
) -> tuple[list[PreferencePair], list[Reject]]:
    """All preference pairs of a file, and the rows that are none, both in the file's order.

    A pair's id is the file's stem and its row number; a prompt's is the hash of its content, so
    that the same prompt has the same id in every row and file. An optional ``ground_truth`` (text
    or number) is kept as text in the prompt's facts. ``parse`` reads another shape of row.
    """
    stem, seen, parse_row = file_stem(path), Seen(), parse or parse_pair

    def pair(number: int, row: Row) -> PreferencePair:
        prompt, chosen, rejected = parse_row(row)
        different(chosen, rejected)
        facts = _facts(row)
        identity = prompt_id(prompt)
        seen.check(identity, chosen, rejected)
        return PreferencePair(f"{stem}-{number}", Prompt(identity, prompt, facts), chosen, rejected)

    return parsed_rows(path, pair)


def parse_pair(row: Row) -> Conversations:
    """The prompt and both responses of a row.

    ``prompt`` is text or messages. A response is text, or messages that end with the assistant's;
    what stands before that one must be the prompt, and is the prompt where the field is missing.

    Raises:
        BadRow: with the reason.
    """
    chosen_history, chosen = _response("chosen", field(row, "chosen"))
    rejected_history, rejected = _response("rejected", field(row, "rejected"))
    prompt = row.get("prompt")
    if prompt is None and chosen_history and rejected_history:
        prompt = chosen_history
    found = conversation("prompt", field({"prompt": prompt}, "prompt"))
    if any(history not in ((), found) for history in (chosen_history, rejected_history)):
        raise BadRow(HISTORIES_DIFFER)
    return found, chosen, rejected


def prompt_id(prompt: Sequence[Message]) -> str:
    """A short hash of roles and contents; white space around a content does not count."""
    content = json.dumps([[message["role"], message["content"].strip()] for message in prompt])
    return hashlib.blake2b(content.encode(), digest_size=PROMPT_ID_BYTES).hexdigest()


def _response(name: str, value: Any) -> tuple[tuple[Message, ...], str]:
    """The messages before the response (none where it is plain text) and the response."""
    if isinstance(value, str):
        return (), response(name, value)
    found = messages(name, value)
    if not found or found[-1]["role"] != "assistant":
        raise BadRow(NOT_BY_THE_ASSISTANT.format(name))
    return found[:-1], response(name, found[-1]["content"])


def _facts(row: Row) -> dict[str, Any]:
    truth = row.get("ground_truth")
    if truth is None:
        return {}
    if isinstance(truth, (int, float)) and not isinstance(truth, bool):
        truth = str(truth)
    return {"ground_truth": text("ground_truth", truth)}
