"""Options of the command line that say how a reward model is read."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from orchestrator.config.load import ConfigError
from orchestrator.scorers.formats import TEXTS, StepFormat

ESCAPES = {"\\n": "\n", "\\t": "\t"}


def parsed_format(items: Sequence[str]) -> StepFormat | None:
    r"""A format from ``name=value`` items; None of none.

    A text is taken as it stands, ``\n`` for a line end; ``null`` is no text.

    Raises:
        ConfigError: a field does not exist, or fields do not go together.
    """
    if not items:
        return None
    valid = [field.name for field in fields(StepFormat)]
    values: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or name not in valid:
            raise ConfigError(f"--format = {item!r}: valid: name=value, of {', '.join(valid)}")
        if name in values:
            raise ConfigError(f"--format = {item!r}: {name} is given twice; valid: once")
        if name in TEXTS:
            values[name] = None if value == "null" else unescaped(value)
        else:
            values[name] = {"true": True, "false": False}.get(value, value)
    try:
        return StepFormat(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--format: {error}") from error


def parsed_score_at(text: str | None) -> str | int | None:
    """A token's text, or an index from the end such as -2."""
    if text is None:
        return None
    return int(text) if text.removeprefix("-").isdecimal() else unescaped(text)


def unescaped(text: str) -> str:
    """A text with the escapes that a shell passes on as they are."""
    for written, meant in ESCAPES.items():
        text = text.replace(written, meant)
    return text
