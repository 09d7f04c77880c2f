"""The JSON schema of a config file, for editors and other tools.

It is pydantic's schema of the config, changed to what a single file may hold: `base:`, sections
whose other fields another file sets, `${...}` in place of a value, null in place of a variant, a
list of methods in place of the search section. It is draft 7, which all editors read.
"""

import json
import re
from typing import Any

from orchestrator.config.tree import Config
from orchestrator.documentation.markdown import paragraph
from orchestrator.search.method import METHODS

DRAFT = "http://json-schema.org/draft-07/schema#"
DEFINITIONS = "#/definitions/"
INTERPOLATION = "Interpolation"
Json = dict[str, Any]


def config_schema_text() -> str:
    """Return the schema as the text of a file."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def config_schema() -> Json:
    """Return the JSON schema of a config file."""
    schema = Config.model_json_schema(ref_template=f"{DEFINITIONS}{{model}}")
    definitions: Json = schema.pop("$defs")
    for section in (schema, *definitions.values()):
        _relax_section(section)
    definitions[INTERPOLATION] = {
        "description": "A reference, such as ${oc.env:NAME,DEFAULT} to an environment variable.",
        "type": "string",
        "pattern": r"\$\{",
    }
    fields = schema["properties"]
    fields["variants"]["additionalProperties"] = _or_null(
        fields["variants"]["additionalProperties"]
    )
    listed = {"type": "array", "minItems": 1, "items": _listed_method(definitions)}
    definitions["SearchConfig"]["properties"]["methods"]["items"] = listed["items"]
    fields["search"] = _described(fields["search"], {"anyOf": [_search(fields), listed]})
    judge = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    judges = definitions["EvaluationConfig"]["properties"]["judges"]
    judges["items"] = {"anyOf": [{"type": "string"}, judge]}  # plug-ins may have any fields
    definitions.pop("Judge", None)
    base = {
        "description": "Another config, relative to this file, over which this one is merged.",
        "type": "string",
    }
    return {
        **schema,
        "$schema": DRAFT,
        "title": "Config of prm-orchestrator",
        "description": "One experiment. All fields: docs/config.md.",
        "properties": {"base": base, **fields},
        "definitions": dict(sorted(definitions.items())),
    }


def _relax_section(section: Json) -> None:
    """Change a section's schema in place, for a file that may hold only some of its fields.

    No field is required, and most values may be a `${...}` reference.
    """
    section.pop("required", None)  # a base file or an override may set it
    if "description" in section:
        section["description"] = _plain(section["description"])
    for name, field in section.get("properties", {}).items():
        section["properties"][name] = _described(field, _value(field))


def _value(field: Json) -> Json:
    """Return the schema of a field's value, without its texts."""
    value = {key: part for key, part in field.items() if key not in _TEXTS}
    if "$ref" in value:
        return {"allOf": [value]}
    if "oneOf" in value:  # distinguished by a field that another file may set
        return {"anyOf": value["oneOf"]}
    if value.get("type") == "object" or value.get("type") == "array":
        return value
    reference = {"$ref": f"{DEFINITIONS}{INTERPOLATION}"}
    parts: list[Json] = value.get("anyOf", [value])
    if any("$ref" in part for part in parts):
        return value
    if any(part.get("type") == "string" and set(part) <= {"type", "minLength"} for part in parts):
        return value  # any string: a reference is one
    return {"anyOf": [*parts, reference]}


_TEXTS = ("title", "description", "default")


def _described(field: Json, value: Json) -> Json:
    """Return a schema of a value with the texts of a field."""
    texts = {}
    if "description" in field:
        texts["description"] = _plain(field["description"])
    if "default" in field and not isinstance(field["default"], dict):  # no section as a whole
        texts["default"] = field["default"]
    return {**texts, **value}


def _plain(text: str) -> str:
    """Return a description with the names of pages in place of links to them."""
    text = re.sub(r"\[([\w.]+\.md)\]\(\1(#[\w-]+)?\)", r"docs/\1", paragraph(text))
    return re.sub(r"\[([^]]+)\]\(([\w.]+\.md)(#[\w-]+)?\)", r"\1 (docs/\2)", text)


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _search(fields: Json) -> Json:
    (section,) = fields["search"]["allOf"]
    return dict(section)


def _listed_method(definitions: Json) -> Json:
    """Return the schema of an entry of `search.methods`, which names its method."""
    names = [kind.__name__ for kind in METHODS.values() if not kind.always_runs]
    return {
        "anyOf": [
            {"allOf": [{"$ref": f"{DEFINITIONS}{name}"}], "required": ["name"]}
            for name in sorted(names)
            if name in definitions
        ]
    }
