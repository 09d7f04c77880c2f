"""A value that a test knows to be there, where the type also allows None."""

from typing import TypeVar

ValueT = TypeVar("ValueT")


def present(value: ValueT | None) -> ValueT:
    """Return the value; fail if it is None."""
    assert value is not None
    return value
