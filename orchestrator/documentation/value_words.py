"""The valid values of a field in words, from its JSON schema."""

from collections.abc import Mapping
from typing import Any

from orchestrator.fields.types import LARGEST, MOST

EXACT = 2**53  # larger powers of two are written as powers


def valid_values(schema: Mapping[str, Any]) -> str:
    """Return the values that a JSON schema of one field allows, in words.

    Bounds that hold for all fields of a type (``LARGEST``, ``MOST``) are left out.

    Args:
        schema: JSON schema of a field as pydantic writes it.

    Raises:
        ValueError: the schema has a form that no field of the config has.
    """
    if "anyOf" in schema or "oneOf" in schema:
        parts = [valid_values(part) for part in schema.get("anyOf", schema.get("oneOf", ()))]
        if len(parts) == 1:
            return parts[0]
        several = ", or " if any(", " in part for part in parts) else " or "
        return f"{', '.join(parts[:-1])}{several}{parts[-1]}"
    if "enum" in schema:
        return ", ".join(_code(value) for value in schema["enum"])
    if "const" in schema:
        return _code(schema["const"])
    if "$ref" in schema or "allOf" in schema:
        return "section"
    kind = str(schema.get("type"))
    if kind in ("integer", "number"):
        return kind + _bounds(schema)
    if kind == "string":
        longest = f", at most {schema['maxLength']} characters" if "maxLength" in schema else ""
        pattern = f" that matches {_code(schema['pattern'])}" if "pattern" in schema else ""
        return f"string{pattern}{longest}"
    if kind == "array":
        items = valid_values(schema["items"]) if schema["items"] else "section"
        items = "sections" if items == "section" else items
        return f"list of {items}{_length(schema)}"
    if kind == "object":
        values = schema["additionalProperties"]
        return f"mapping of names to {'value' if values is True else valid_values(values)}s"
    if kind in ("boolean", "null"):
        return {"boolean": "`true`, `false`", "null": "null"}[kind]
    raise ValueError(f"JSON schema {dict(schema)}: no words for it; add them to valid_values")


def _code(value: Any) -> str:
    return f"`{value}`"


def _bounds(schema: Mapping[str, Any]) -> str:
    low, over = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, under = schema.get("maximum"), schema.get("exclusiveMaximum")
    if high in (LARGEST, MOST):
        high = None
    if low == -LARGEST:
        low = None
    words = []
    if low is not None and high is not None:
        words.append(f"from {_number(low)} to {_number(high)}")
    elif low is not None:
        words.append(f"at least {_number(low)}")
    if over is not None:
        words.append(f"over {_number(over)}")
    if high is not None and low is None:
        words.append(f"at most {_number(high)}")
    if under is not None:
        words.append(f"below {_number(under)}")
    return f", {', '.join(words)}" if words else ""


def _number(value: float) -> str:
    integer = int(value)
    if integer >= EXACT and integer & (integer - 1) == 0:
        return f"2^{integer.bit_length() - 1}"
    return f"{value:,}" if integer != value else f"{integer:,}"


def _length(schema: Mapping[str, Any]) -> str:
    fewest, most = schema.get("minItems"), schema.get("maxItems")
    if fewest and most:
        return f"; {fewest} to {most} entries"
    if most:
        return f"; at most {most} entries"
    if fewest:
        return f"; at least {fewest} {'entry' if fewest == 1 else 'entries'}"
    return ""
