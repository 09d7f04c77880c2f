"""Where the search of one prompt stands, as a plain value: it can be written as JSON and read back.

Whoever has a state can go on from it (``method.py``), in another process or on another machine.
Knows no method; a method that needs more than candidates has a state of its own with more fields.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from orchestrator.records import Cost
from orchestrator.search.problem import Candidate

Value = TypeVar("Value")


@dataclass(frozen=True)
class State:
    """The ``candidates`` that are kept after ``step`` steps, with the ledger's sums so far."""

    candidates: tuple[Candidate, ...]
    step: int = 0
    cost: Cost = field(default_factory=Cost)
    margin: float = math.inf


def to_json(value: Any) -> str:
    """A dataclass of plain values, tuples and such dataclasses, as one line of JSON.

    Floats keep every bit; those that JSON has no number for are written as text ("inf").
    """
    return json.dumps(_plain(value), allow_nan=False)


def from_json(kind: type[Value], text: str) -> Value:
    """The value of a dataclass that ``to_json`` wrote.

    Raises:
        TypeError: the text is not of such a value.
    """
    value: Value = _typed(kind, json.loads(text))
    return value


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is no plain value: {value!r}")


def _typed(kind: Any, value: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        return kind(**{name: _typed(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    if origin is tuple and inner[1:] == (...,) and isinstance(value, Sequence):
        return tuple(_typed(inner[0], item) for item in value)
    if origin in (Union, UnionType):
        return None if value is None else _typed(_only(inner), value)
    if origin is Literal and value in inner:
        return value
    if kind is float and isinstance(value, int | float | str):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise TypeError(f"{value!r} is not of {kind}")


def _only(kinds: tuple[Any, ...]) -> Any:
    """X of X | None."""
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    return kind
