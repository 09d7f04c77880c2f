"""Types of the config's fields: numbers and booleans as YAML 1.2 writes them, within bounds.

A boolean is no number and a text none, but for what environment variables give: a text that YAML
would read as a number or as a boolean. Bounds keep out what no machine computes with; what a
machine has no room for is another matter (`sizes.py`).
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from orchestrator.config.yaml_text import BadYaml, read_scalar

MOST = 2**31 - 1  # of a count
LARGEST = 1e9  # of a number; float32 has 38 digits, and products of two have room
SEEDS = 2**63  # seeds are below it
NAME_LENGTH = 100  # characters of a name that becomes a folder


def _read(given: Any) -> Any:
    """What YAML reads a text as; anything else as it is."""
    if not isinstance(given, str):
        return given
    try:
        return read_scalar(given)
    except BadYaml:
        return given


def _whole(given: Any) -> Any:
    read = _read(given)
    if isinstance(read, bool) or not isinstance(read, int | float):
        raise PydanticCustomError("no_integer", "input should be a valid integer, such as 8")
    return read


def _number(given: Any) -> Any:
    read = _read(given)
    if isinstance(read, bool) or not isinstance(read, int | float):
        raise PydanticCustomError("no_number", "input should be a valid number, such as 0.5")
    return read


def _flag(given: Any) -> Any:
    read = _read(given)
    if not isinstance(read, bool):
        raise PydanticCustomError("no_boolean", "input should be a valid boolean: true or false")
    return read


def _no_boolean(given: Any) -> Any:
    if isinstance(given, bool):
        raise PydanticCustomError("a_boolean", "input should be a text or a whole number")
    return given


def _different(values: list[Any]) -> list[Any]:
    for value in values:
        if values.count(value) > 1:
            raise PydanticCustomError(
                "given_twice", "{value} is given twice; valid: each once", {"value": str(value)}
            )
    return values


Different = AfterValidator(_different)
Whole = BeforeValidator(_whole)
Number = BeforeValidator(_number)
Count = Annotated[int, Field(ge=1, le=MOST), Whole]
CountOrNone = Annotated[int, Field(ge=0, le=MOST), Whole]  # 0 where there are none
Index = Annotated[int, Field(ge=0, le=MOST), Whole]
Seed = Annotated[int, Field(ge=0, lt=SEEDS), Whole]
Real = Annotated[float, Field(ge=-LARGEST, le=LARGEST), Number]
Positive = Annotated[float, Field(gt=0, le=LARGEST), Number]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST), Number]
Share = Annotated[float, Field(ge=0, lt=1), Number]  # 0 where the model of the split is given
Quantile = Annotated[float, Field(ge=0, le=1), Number]
Flag = Annotated[bool, BeforeValidator(_flag)]
Token = Annotated[str | int, BeforeValidator(_no_boolean)]  # as text, or an index
Text = Annotated[str, Field(min_length=1)]
