"""Pages that are written from the code are what the code writes."""

from pathlib import Path

from orchestrator.search.method import METHODS
from orchestrator.search.reference import methods_page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_of_the_search_methods_is_current() -> None:
    assert (DOCS / "methods.md").read_text() == methods_page()


def test_every_field_of_every_method_is_described() -> None:
    for method in METHODS.values():
        for name, field in method.model_fields.items():
            assert field.description or name == "name", f"{method.__name__}.{name}"
