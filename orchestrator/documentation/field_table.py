"""The table of a section's fields: valid values, default and description."""

from collections.abc import Collection, Mapping
from typing import get_args

from pydantic.fields import FieldInfo

from orchestrator.documentation.markdown import code, paragraph, table
from orchestrator.documentation.value_words import valid_values
from orchestrator.fields.section import Section

COLUMNS = ("field", "valid values", "default", "description")


def field_table(
    section: type[Section], skip: Collection[str] = (), anchors: Mapping[str, str] | None = None
) -> str:
    """Return the table in Markdown; "" if no field is left.

    Args:
        section: the class whose fields are shown.
        skip: names of fields that are left out.
        anchors: anchor of each section's table on the page, by class name.
    """
    schemas = section.model_json_schema()["properties"]
    rows = []
    for name, info in section.model_fields.items():
        if name in skip:
            continue
        classes = [part.__name__ for part in sections_in(info.annotation)]
        links = [anchors[each] for each in classes if anchors and each in anchors]
        valid = " or ".join(f"[section](#{anchor})" for anchor in links)
        description = paragraph(info.description or "")
        rows.append(
            (f"`{name}`", valid or valid_values(schemas[name]), _default(info), description)
        )
    return table(COLUMNS, rows) if rows else ""


def sections_in(annotation: object) -> list[type[Section]]:
    """Return the sections of a type, which may be a union or a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def _default(info: FieldInfo) -> str:
    """Return the default of a field.

    For a section: the fields that its default instance sets explicitly.
    """
    if info.is_required():
        return "required"
    if info.default_factory is not None:
        return "see below"
    value = info.default
    if isinstance(value, Section):
        fields = value.model_dump(mode="json", exclude_unset=True)
        return ", ".join(f"`{name}: {value}`" for name, value in fields.items())
    return code(value)
