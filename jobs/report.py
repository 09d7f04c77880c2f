"""Shows the tables of a finished sweep and writes its report anew, from its summary.json.

    python jobs/report.py runs/helpdesk

FOLDER is the output folder of a sweep. report.html and figures/ in it are replaced.
"""

from pathlib import Path
from typing import Annotated

import typer

from jobs.steps.quiet import quieten

quieten()  # before any library that reads its settings at import

from jobs.steps.main import report_main  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(folder: Annotated[Path, typer.Argument(help="of a finished sweep")]) -> None:
    """Parses, and hands over."""
    raise typer.Exit(report_main(folder))


if __name__ == "__main__":
    app()
