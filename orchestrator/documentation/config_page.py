"""The page of the config: a hand-written template with a table of fields for each section.

The template is docs/templates/config.md.j2. ``{{ fields("TrainingConfig") }}`` in it becomes
the summary of the section and the table of its fields, ``{{ tasks() }}`` those of all tasks.
"""

import inspect
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from orchestrator.config.tree import Config
from orchestrator.documentation.field_table import field_table, sections_in
from orchestrator.documentation.markdown import paragraph
from orchestrator.fields.section import Section
from orchestrator.judges.judge import Judge
from orchestrator.search.method import SearchMethod
from orchestrator.tasks.task import TASKS

TEMPLATE = Path(__file__).resolve().parents[2] / "docs" / "templates" / "config.md.j2"


def config_page() -> str:
    """Return the page in Markdown.

    Raises:
        ValueError: the template leaves a section out, or names one that does not exist.
    """
    sections, template = _sections(), TEMPLATE.read_text()
    headings = _headings(template) | {task.__name__: name for name, task in TASKS.items()}
    if unknown := sorted(set(headings) - set(sections)):
        valid = f"valid: {', '.join(sorted(sections))}"
        raise ValueError(f"{TEMPLATE.name}: {unknown[0]}: no such section; {valid}")
    if missing := sorted(set(sections) - set(headings)):
        raise ValueError(f"{TEMPLATE.name}: no table for {', '.join(missing)}")

    def fields(name: str, *skip: str) -> str:
        section = sections[name]
        summary = paragraph(inspect.getdoc(section) or "")
        skipped = (*skip, *_method_fields(section))
        return f"{summary}\n\n{field_table(section, skipped, headings)}"

    def tasks() -> str:
        parts = (f"### {name}\n\n{fields(TASKS[name].__name__, 'task')}" for name in TASKS)
        return "\n\n".join(parts)

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template).render(
        fields=fields, tasks=tasks, task_names=", ".join(map("`{}`".format, TASKS))
    )


@cache
def _sections() -> dict[str, type[Section]]:
    """The sections whose tables the page has, by name; but for search methods and judges."""
    sections: dict[str, type[Section]] = {}
    pending: list[type[Section]] = [Config]
    while pending:
        section = pending.pop()
        if section.__name__ in sections or issubclass(section, SearchMethod | Judge):
            continue
        sections[section.__name__] = section
        for field in section.model_fields.values():
            pending += sections_in(field.annotation)
    return sections


def _headings(template: str) -> dict[str, str]:
    """The anchor of the heading above each section's table, as GitHub names it."""
    anchors: dict[str, str] = {}
    heading = ""
    for line in template.splitlines():
        if line.startswith("#"):
            heading = re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        elif match := re.search(r'fields\("(\w+)"\)', line):
            anchors[match[1]] = heading
    return anchors


def _method_fields(section: type[Section]) -> list[str]:
    """The fields that hold search methods; docs/methods.md has them."""
    return [
        name
        for name, info in section.model_fields.items()
        if any(issubclass(part, SearchMethod) for part in sections_in(info.annotation))
    ]
