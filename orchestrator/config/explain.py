"""What pydantic finds wrong with a config, as a line that names field, value and what is valid."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from orchestrator.config.errors import shown, shown_name
from orchestrator.config.sections import Variant
from orchestrator.config.tree import Config
from orchestrator.tasks.task import TASKS

NO_SECTION = ("model_type", "model_attributes_type", "dict_type")


def explained(problem: Mapping[str, Any] | Any) -> str:
    """The line of one of ``ValidationError.errors()``."""
    location = problem["loc"]
    place = _place(location)
    field, value = shown_name(".".join(map(str, place))), shown(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"{field} = {value}: unknown key{_suggestion(location)}"
    if problem["type"] in NO_SECTION:
        keys = ", ".join(_keys(location)) or "by name"
        return f"{field or 'config'} = {value}: a section is wanted; valid: fields {keys}"
    if problem["type"] == "value_error":
        return f"{field}: {problem['ctx']['error']}" if field else str(problem["ctx"]["error"])
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        given = problem["ctx"].get("tag")
        found = "missing" if given is None else f"{shown(given)}: no such task"
        separator = ": " if given is None else " = "
        return f"{field}.task{separator}{found}; valid: {', '.join(TASKS)}"
    message = " ".join(problem["msg"].split())
    message = message[0].lower() + message[1:]
    if problem["type"] == "missing":
        return f"{field}: {message}"
    return f"{field} = {value}: {message}"


def _place(location: Sequence[Any]) -> list[Any]:
    """Without the name of the task, which pydantic puts into the place of a field of its data."""
    place = list(location)
    if len(place) > 1 and place[0] == "data" and place[1] in TASKS:
        del place[1]
    return place


def _keys(location: Sequence[Any]) -> list[str]:
    """The fields of the section at a place; none where it is no section of stated fields."""
    section: type[BaseModel] | None = Config
    parts = list(location)
    while parts and section is not None:
        part = parts.pop(0)
        if section is Config and part in ("data", "variants"):
            name = parts.pop(0) if parts else None
            section = TASKS.get(str(name)) if part == "data" else Variant if name else None
        else:
            field = section.model_fields.get(str(part))
            section = None if field is None else _section_in(field.annotation)
    return [] if section is None else list(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section of a field's type, which may be optional."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _suggestion(location: Sequence[Any]) -> str:
    """The valid keys of the section that holds an unknown key, the likeliest first."""
    valid = _keys(location[:-1])
    if not valid:
        return ""
    close = difflib.get_close_matches(str(location[-1]), valid, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{meant} valid: {', '.join(valid)}" if meant else f"; valid: {', '.join(valid)}"
