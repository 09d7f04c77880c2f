"""Pages that are written from the code are what the code writes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from orchestrator.config.sections import Variant
from orchestrator.config.training import Optimization
from orchestrator.config.tree import Config
from orchestrator.documentation import config_page
from orchestrator.documentation.pages import DOCS, PAGES
from orchestrator.documentation.value_words import valid_values
from orchestrator.fields.section import Section
from orchestrator.fields.types import LARGEST, MOST
from orchestrator.search.method import METHODS, SearchMethod
from orchestrator.tasks.helpdesk.task import Helpdesk
from orchestrator.tasks.worked_answers import GSM8K


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_writes(name: str) -> None:
    written = (DOCS / name).read_text()
    assert written == PAGES[name](), f"docs/{name} is not up to date: run `make reference`"


def test_one_command_writes_all_pages(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "templates", tmp_path / "docs" / "templates")
    shutil.copytree(
        DOCS.parent / "orchestrator", tmp_path / "orchestrator",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.documentation"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": written") == len(PAGES)
    for name in PAGES:
        assert (tmp_path / "docs" / name).read_text() == (DOCS / name).read_text()


def test_a_template_that_leaves_a_section_out_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = config_page.TEMPLATE.read_text()
    changed = tmp_path / "config.md.j2"
    monkeypatch.setattr(config_page, "TEMPLATE", changed)
    changed.write_text(template.replace('{{ fields("StorageConfig") }}', ""))
    with pytest.raises(ValueError, match="no table for StorageConfig"):
        config_page.config_page()
    changed.write_text(template.replace("StorageConfig", "Storage"))
    with pytest.raises(ValueError, match="Storage: no such section; valid: "):
        config_page.config_page()


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": MOST}, "integer, at least 1"),
        ({"type": "integer", "minimum": 0, "maximum": 3}, "integer, from 0 to 3"),
        ({"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63},
         "integer, at least 0, below 2^63"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number, over 0, at most 1"),
        ({"type": "number", "minimum": -LARGEST, "maximum": LARGEST}, "number"),
        ({"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]}, "string or null"),
        ({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}, "`a`, `b`, or null"),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 9},
         "list of `true`, `false`; 1 to 9 entries"),
        ({"type": "array", "items": {}, "maxItems": 9}, "list of sections; at most 9 entries"),
        ({"type": "array", "items": {}, "minItems": 1}, "list of sections; at least 1 entry"),
        ({"type": "array", "items": {}, "minItems": 2}, "list of sections; at least 2 entries"),
    ],
)  # fmt: skip
def test_valid_values_in_words(schema: dict[str, Any], words: str) -> None:
    assert valid_values(schema) == words


def test_a_schema_without_words_is_an_error() -> None:
    with pytest.raises(ValueError, match="no words for it"):
        valid_values({"type": "tuple"})


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The sections of a type, and of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
        for field in annotation.model_fields.values():
            yield from sections_in(field.annotation)
    for argument in get_args(annotation):
        yield from sections_in(argument)


def test_every_field_of_every_section_is_described() -> None:
    sections = set(sections_in(Config))
    assert {Config, Helpdesk, GSM8K, Variant, Optimization} < sections
    for section in sections:
        if not issubclass(section, SearchMethod):
            for name, field in section.model_fields.items():
                assert field.description, f"{section.__name__}.{name} has no text below it"


def test_every_field_of_every_method_is_described() -> None:
    for method in METHODS.values():
        for name, field in method.model_fields.items():
            assert field.description or name == "name", f"{method.__name__}.{name}"
