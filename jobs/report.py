"""Show the tables of a finished sweep and rewrite its report, from its summary.json.

    python jobs/report.py runs/helpdesk

FOLDER is the output folder of a sweep. report.html and figures/ in it are replaced.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs.command_line.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.command_line.arguments import usage  # noqa: E402
from jobs.command_line.exit_codes import OK  # noqa: E402
from jobs.command_line.job_command import JobCommand  # noqa: E402
from jobs.sweep.main import run_and_catch_config_errors  # noqa: E402
from orchestrator.config.errors import ConfigError  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=usage(__doc__), cls=JobCommand)
def main(folder: Annotated[Path, typer.Argument(help="output folder of a finished sweep")]) -> None:
    """Run the job with the options of the command line."""
    raise typer.Exit(run_and_catch_config_errors(lambda console: _render(folder, console)))


def _render(folder: Path, console: Console) -> int:
    if not (folder / "summary.json").is_file():
        valid = "valid: the output folder of a finished sweep"
        raise ConfigError(f"{folder}: has no summary.json; {valid}")
    from jobs.sweep.report_again import render_again  # imports matplotlib

    render_again(folder, console)
    return OK


if __name__ == "__main__":
    app()
