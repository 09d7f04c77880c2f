"""The config's type of an objective's name, checked against the registry."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from orchestrator.objectives.objective import variant_objectives


def _registered(name: str) -> str:
    """Return a name that a variant can have."""
    if name not in variant_objectives():
        raise PydanticCustomError(
            "no_objective",
            "no such objective; valid: {valid}",
            {"valid": ", ".join(variant_objectives())},
        )
    return name


def _add_names(schema: dict[str, object]) -> None:
    """Add the valid names to the JSON schema of the field."""
    schema["enum"] = list(variant_objectives())


ObjectiveName = Annotated[str, AfterValidator(_registered), Field(json_schema_extra=_add_names)]
