"""Pages that are written from the code are what the code writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from orchestrator.config.section import Section
from orchestrator.config.sections import Variant
from orchestrator.config.training import Optimization
from orchestrator.config.tree import Config
from orchestrator.search.method import METHODS, SearchMethod
from orchestrator.search.reference import methods_page
from orchestrator.tasks.helpdesk.task import Helpdesk
from orchestrator.tasks.worked_answers import GSM8K

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_of_the_search_methods_is_current() -> None:
    assert (DOCS / "methods.md").read_text() == methods_page()


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
