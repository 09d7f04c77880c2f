"""Run a sweep: train the models, search with every method and scorer, and compare the results.

    python jobs/full_sweep.py [--config configs/NAME.yaml] [key.sub=value ...] [--dry-run]

The stages are data, policy, pairs, ORM, reference RM, partial pairs with weights, process reward
models, search, evaluation and report. Finished stages are not run again.
"""

import typer

from jobs.command_line.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.command_line.arguments import ConfigFile, DryRun, Force, Overrides, usage  # noqa: E402
from jobs.command_line.config_command import ConfigCommand  # noqa: E402
from jobs.sweep.main import sweep_main  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=usage(__doc__), cls=ConfigCommand)
def main(
    overrides: Overrides = None,
    config: ConfigFile = None,
    dry_run: DryRun = False,
    force: Force = None,
) -> None:
    """Run the job with the options of the command line."""
    raise typer.Exit(sweep_main(config, overrides or [], dry_run, force or []))


if __name__ == "__main__":
    app()
