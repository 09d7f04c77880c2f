"""The main job: preference data to a compared set of aligned decoders.

    python jobs/full_sweep.py [--config configs/NAME.yaml] [key.sub=value ...] [--dry-run]

Its steps are the paper's: data -> policy -> pairs -> ORM, reference -> partial pairs with weights
-> process reward models -> search -> evaluation -> report. See jobs/steps/plan.py.
"""

import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any working directory

import typer

from jobs.steps.quiet import quieten

quieten()  # before any library that reads its settings at import

from jobs.steps.main import sweep_main  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="fields of the config, as key.sub=value")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="a YAML file; without it, the embedded help desk")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="print the plan and stop")] = False,
    force: Annotated[
        list[str] | None, typer.Option(help="do this stage, and what follows, again")
    ] = None,
) -> None:
    """Parses, and hands over."""
    raise typer.Exit(sweep_main(config, overrides or [], dry_run, force or []))


if __name__ == "__main__":
    app()
