"""Types of the config's fields: numbers and booleans as in YAML 1.2, within bounds.

A boolean is not a number. A string is one only if YAML would read it as a number, since environment
variables are strings. Bounds exclude values that no machine can compute with; `config/sizes.py`
checks the memory and disk of this machine.
"""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from orchestrator.fields.yaml_text import BadYaml, read_scalar

MOST = 2**31 - 1  # the largest count
LARGEST = 1e9  # the largest number; a product of two is far below the limit of float32
SEEDS = 2**63  # seeds are less than this
NAME_LENGTH = 100  # characters of a name that becomes a folder


def _read(value: object) -> object:
    """Return the value that YAML reads from a string; other values unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return read_scalar(value)
    except BadYaml:
        return value


def _integer(value: object) -> int | float:
    read = _read(value)
    if isinstance(read, bool) or not isinstance(read, int | float):
        raise PydanticCustomError("no_integer", "input should be a valid integer, such as 8")
    return read


def _number(value: object) -> int | float:
    read = _read(value)
    if isinstance(read, bool) or not isinstance(read, int | float):
        raise PydanticCustomError("no_number", "input should be a valid number, such as 0.5")
    return read


def _flag(value: object) -> bool:
    read = _read(value)
    if not isinstance(read, bool):
        raise PydanticCustomError("no_boolean", "input should be a valid boolean: true or false")
    return read


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("a_boolean", "input should be a string or an integer")
    return value


def _unique(values: list[object]) -> list[object]:
    for value in values:
        if values.count(value) > 1:
            raise PydanticCustomError(
                "duplicate", "{value} appears twice; valid: each value once", {"value": str(value)}
            )
    return values


Unique = AfterValidator(_unique)
Integer = BeforeValidator(_integer)
Number = BeforeValidator(_number)
Count = Annotated[int, Field(ge=1, le=MOST), Integer]
NonNegativeInt = Annotated[int, Field(ge=0, le=MOST), Integer]
Index = Annotated[int, Field(ge=0, le=MOST), Integer]
Seed = Annotated[int, Field(ge=0, lt=SEEDS), Integer]
Real = Annotated[float, Field(ge=-LARGEST, le=LARGEST), Number]
Positive = Annotated[float, Field(gt=0, le=LARGEST), Number]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST), Number]
Share = Annotated[float, Field(ge=0, lt=1), Number]  # 0: the run trains no model on this split
Quantile = Annotated[float, Field(ge=0, le=1), Number]
Flag = Annotated[bool, BeforeValidator(_flag)]
Token = Annotated[str | int, BeforeValidator(_no_boolean)]  # its text or its index
Text = Annotated[str, Field(min_length=1)]
