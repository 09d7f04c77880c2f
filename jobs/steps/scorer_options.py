"""Options of the command line that say how a reward model is read."""

from collections.abc import Sequence
from dataclasses import fields

import yaml

from orchestrator.config.load import ConfigError
from orchestrator.scorers.formats import StepFormat


def parsed_format(items: Sequence[str]) -> StepFormat | None:
    """A format from ``name=value`` items, values in YAML notation; None of none.

    Raises:
        ConfigError: a field does not exist, or fields do not go together.
    """
    if not items:
        return None
    valid, values = [field.name for field in fields(StepFormat)], {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or name not in valid:
            raise ConfigError(f"--format = {item!r}: valid: name=value, of {', '.join(valid)}")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--format = {item!r}: its value is no YAML") from None
    try:
        return StepFormat(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--format: {error}") from error


def parsed_score_at(text: str | None) -> str | int | None:
    """A token's text, or an index from the end such as -2."""
    if text is None:
        return None
    return int(text) if text.removeprefix("-").isdecimal() else text
