"""`KindName`: the name of a registered scorer kind, as a config field."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from orchestrator.scorers.kind import check_kind, kinds_in_order


def _registered(name: str) -> str:
    """Check that a scorer kind has this name, and return it."""
    try:
        return check_kind(name)
    except ValueError as error:
        raise PydanticCustomError("no_kind", "{why}", {"why": str(error)}) from None


def _add_names(schema: dict[str, object]) -> None:
    """Add the valid names to the JSON schema of the field."""
    schema["enum"] = list(kinds_in_order())


KindName = Annotated[str, AfterValidator(_registered), Field(json_schema_extra=_add_names)]
