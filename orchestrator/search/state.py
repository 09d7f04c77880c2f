"""The state of one prompt's search, a value that can be written as JSON and read back.

A search can be resumed from a state in another process or on another machine. A method that needs
more than candidates subclasses it with more fields.
"""

import math
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_json

from orchestrator.records import Cost
from orchestrator.search.problem import Candidate


@dataclass(frozen=True)
class SearchState:
    """The ``candidates`` after ``step`` steps, with the cost and the least margin so far."""

    candidates: tuple[Candidate, ...]
    step: int = 0
    cost: Cost = field(default_factory=Cost)
    margin: float = math.inf


StateT = TypeVar("StateT", bound=SearchState)


def state_to_json(state: SearchState) -> str:
    """Return a state as JSON; floats round-trip exactly, infinities are strings."""
    return to_json(state, inf_nan_mode="strings").decode()


def state_from_json(state_type: type[StateT], text: str) -> StateT:
    """Read a state of type ``state_type``.

    Raises:
        pydantic.ValidationError: the text is not of such a state.
    """
    return TypeAdapter(state_type).validate_json(text)
