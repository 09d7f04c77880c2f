"""The report of a finished sweep, written again from its summary. Loads no model library."""

import json
from pathlib import Path

from jinja2.exceptions import UndefinedError
from rich.console import Console

from orchestrator.config.errors import ConfigError, reason_of
from orchestrator.report.figures import figures, save_figures
from orchestrator.report.page import render, write_page
from orchestrator.report.terminal import print_summary


def render_again(folder: Path, console: Console) -> None:
    """Write report.html and the figures of a finished sweep again, and show the tables.

    Raises:
        ConfigError: the folder has no summary that can be read, or the report or the figures cannot
            be written.
    """
    file = folder / "summary.json"
    try:
        summary = json.loads(file.read_text("utf-8"))
        drawn = figures(summary)
        page = render(summary, drawn, summary.get("mlflow_command", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UndefinedError) as error:
        raise ConfigError(
            f"{file}: cannot be read as a sweep's summary ({reason_of(error)});"
            " valid: the output folder of a finished sweep"
        ) from error
    try:
        save_figures(drawn, folder / "figures")
        write_page(page, folder / "report.html")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {reason_of(error)}") from error
    print_summary(summary, console)
    console.print(f"report:  {folder / 'report.html'}", highlight=False, soft_wrap=True)
