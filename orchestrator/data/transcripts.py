r"""HH-RLHF (appendix C.1): preference pairs from raw transcripts or parsed rows.

A raw row holds two transcripts ("\n\nHuman: ...\n\nAssistant: ..."): their shared history is the
prompt, their last assistant turns are the responses. Independent of tokenizers and models.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from orchestrator.data.messages import Conversation, conversation
from orchestrator.data.pairs import read_pairs
from orchestrator.data.rejects import BadRow, field, response, text
from orchestrator.data.row_forms import HISTORIES_DIFFER, PROMPTS, RowPair, pairs_of
from orchestrator.data.rows import Row
from orchestrator.records import Message, PreferencePair, Reject

# A turn begins after an empty line, which is optional before the first one.
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
NOT_A_TRANSCRIPT = "not a transcript: {} does not begin with a Human or Assistant turn"
NO_LAST_TURN = "not a transcript: {} does not end with an Assistant turn"


def read_hh(path: str | Path) -> tuple[list[PreferencePair], list[Reject]]:
    """Read all pairs of an HH-RLHF file, raw, parsed or mixed, and the rejects.

    White space around the turns of raw transcripts is dropped.
    """
    return read_pairs(path, _parse)


def parse_raw(row: Row) -> tuple[Conversation, str, str]:
    """Return prompt, chosen and rejected response of a row of two transcripts.

    Raises:
        BadRow: a transcript does not parse, or the histories before the last turns differ.
    """
    chosen = transcript("chosen", text("chosen", field(row, "chosen")))
    rejected = transcript("rejected", text("rejected", field(row, "rejected")))
    if chosen[:-1] != rejected[:-1]:
        raise BadRow(HISTORIES_DIFFER)
    prompt = conversation("prompt", chosen[:-1])
    return (
        prompt,
        response("chosen", chosen[-1]["content"]),
        response("rejected", rejected[-1]["content"]),
    )


def transcript(name: str, content: str) -> list[Message]:
    """Parse a transcript to messages; the last one is the assistant's.

    Raises:
        BadRow: it does not begin with a turn, or does not end with an assistant's turn.
    """
    before, *turns = _TURN.split(content)
    if before.strip() or not turns:
        raise BadRow(NOT_A_TRANSCRIPT.format(name))
    messages: list[Message] = [
        {"role": _ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(turns[::2], turns[1::2], strict=True)
    ]
    if messages[-1]["role"] != "assistant":
        raise BadRow(NO_LAST_TURN.format(name))
    return messages


def _parse(row: Row) -> Iterable[RowPair | BadRow]:
    """Parse a row of transcripts (text that includes the prompt), or of any other form."""
    has_prompt = any(row.get(name) is not None for name in PROMPTS)
    raw = not has_prompt and any(isinstance(row.get(name), str) for name in ("chosen", "rejected"))
    return (RowPair("", *parse_raw(row)),) if raw else pairs_of(row)
