"""Pieces of Markdown that several generated pages use."""

import json
import re
from collections.abc import Iterable


def paragraph(text: str) -> str:
    """Return a text on one line, with single backticks in place of a docstring's double ones."""
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join(text.split()))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; a ``|`` in a cell is escaped."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in line) + " |"
        for line in lines
    )


def code(value: object) -> str:
    """Return a value of the config as code, in YAML notation."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"
