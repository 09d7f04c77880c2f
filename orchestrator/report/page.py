"""Render the report: one HTML page with tables, figures and provenance.

The page loads nothing: styles and figures are inline, and there are no scripts. The template engine
escapes all text except the SVG figures.
"""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from orchestrator.report import provenance, result_tables
from orchestrator.report.budget import budget_marks, equal_budget_table
from orchestrator.report.entries import Summary
from orchestrator.report.notation import duration, printable
from orchestrator.report.reasons import counts_table, reasons
from orchestrator.report.style import inline_svg
from orchestrator.report.terminal import premise_line

TEMPLATE = "page.html.j2"


def write_page(page: str, file: Path) -> None:
    """Write the HTML of the page atomically to a local file."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    # A lone surrogate from a bad input file cannot be encoded as UTF-8; it becomes "?".
    unfinished.write_text(page, encoding="utf-8", errors="replace")
    unfinished.replace(file)


def render(summary: Summary, figures: Mapping[str, Figure], ui_command: str) -> str:
    """Return the HTML of the page.

    Args:
        summary: the summary of the sweep.
        figures: its figures by name, as ``figures.figures`` returns them.
        ui_command: the command that opens the MLflow UI.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(printable=printable, duration=duration)
    svgs = {name: inline_svg(name, figure) for name, figure in figures.items()}
    return environment.get_template(TEMPLATE).render(
        summary=summary,
        premise=premise_line(summary),
        ui_command=ui_command,
        figures={name: Markup(svg) for name, svg in svgs.items()},
        tables={
            "cells": result_tables.cells_table(summary, detail=True),
            "equal_budget": equal_budget_table(summary),
            "counts": counts_table(summary),
            "agreement": result_tables.agreement_table(summary),
            "agreement_comparisons": result_tables.agreement_comparisons_table(summary),
            "agreement_by_length": result_tables.agreement_by_length_table(summary),
            "models": provenance.models_table(summary),
            "weights": provenance.weights_table(summary),
            "stages": provenance.stages_table(summary),
            "rejects": provenance.rejects_table(summary),
            "versions": provenance.versions_table(summary),
        },
        comparisons=result_tables.comparison_tables(summary),
        budget_marks=budget_marks(summary),
        reasons=reasons(summary),
    )
