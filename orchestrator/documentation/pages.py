"""Which pages of docs/ are generated from the code, and the function that returns each."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.documentation.config_page import config_page
from orchestrator.documentation.config_schema import config_schema_text
from orchestrator.documentation.methods_page import methods_page
from orchestrator.documentation.pipeline_figure import pipeline_figure

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES: dict[str, Callable[[], str]] = {
    "config.md": config_page,
    "config.schema.json": config_schema_text,
    "methods.md": methods_page,
    "pipeline.svg": pipeline_figure,
}
