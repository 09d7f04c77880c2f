"""Pydantic's validation errors as lines that name the field, its value and valid values."""

import difflib
import re
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from orchestrator.config.errors import shown, shown_name
from orchestrator.config.sections import Variant
from orchestrator.config.tree import Config
from orchestrator.tasks.task import TASKS

Location = tuple[int | str, ...]  # path of a field in pydantic's errors
# Mappings whose keys are not fields: what they hold.
MAPPINGS = {"variants": "{NAME: {FIELD: value}}", "data": "{task: NAME, FIELD: value}"}
NO_SECTION = ("model_type", "model_attributes_type", "dict_type")


def explained(problem: ErrorDetails) -> str:
    """Return one of ``ValidationError.errors()`` as a line."""
    location = problem["loc"]
    field, value = shown_name(".".join(map(str, _path(location)))), shown(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"{field} = {value}: unknown key{_suggestion(location)}"
    if problem["type"] in NO_SECTION:
        if keys := _keys(location):
            valid = ", ".join(keys)
            return f"{field or 'config'} = {value}: must be a section; valid: fields {valid}"
        valid = MAPPINGS.get(field, "{NAME: value}")
        return f"{field} = {value}: not a mapping; valid: {valid}"
    if problem["type"] == "value_error":
        return _of_section(field, _keys(location), str(problem["ctx"]["error"]))
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        task = problem["ctx"].get("tag")
        error = ": missing" if task is None else f" = {shown(task)}: no such task"
        return f"{field}.task{error}; valid: {', '.join(TASKS)}"
    is_null = problem["type"] == "missing" or problem["input"] is None
    if is_null and len(location) > 2 and (files := valid_files(location[1], field)):
        return f"{field}: not set; valid: {files}"
    message = " ".join(problem["msg"].split())
    message = message[0].lower() + message[1:]
    if problem["type"] == "missing":
        return f"{field}: {message}"
    return f"{field} = {value}: {message}"


def _of_section(path: str, fields: list[str], error: str) -> str:
    """Return a validator's error with the path of its section; it may begin with a field of it."""
    if not path:
        return error
    begin = re.match(r"(\w+)[\w.]*(:| =)", error)
    return f"{path}{'.' if begin and begin[1] in fields else ': '}{error}"


def valid_files(task: object, field: str) -> str:
    """Return what files a field of a task's data may name; "" if it names none."""
    section, _, name = field.partition(".")
    kind = TASKS.get(str(task))
    if section != "data" or kind is None or name not in kind.file_fields:
        return ""
    from orchestrator.data.rows import VALID  # imports pyarrow

    return VALID


def _path(location: Location) -> list[int | str]:
    """Return the path of a field; pydantic adds the name of the task to fields of its data."""
    path = list(location)
    if len(path) > 1 and path[0] == "data" and path[1] in TASKS:
        del path[1]
    return path


def _keys(location: Location) -> list[str]:
    """Return the fields of the section at a location; none if its fields are not fixed."""
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


def _section_in(annotation: object) -> type[BaseModel] | None:
    """Return the section of a field's type, which may be optional."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _suggestion(location: Location) -> str:
    """Return the valid keys of the section with an unknown key, after the most similar one."""
    valid = _keys(location[:-1])
    if not valid:
        return ""
    close = difflib.get_close_matches(str(location[-1]), valid, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{meant} valid: {', '.join(valid)}" if meant else f"; valid: {', '.join(valid)}"
