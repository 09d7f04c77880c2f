"""Train one model of a config, with the stages that it needs and no others.

    python jobs/train.py MODEL [--config configs/NAME.yaml] [key.sub=value ...] [--dry-run]

MODEL is policy, orm, reference or the name of a variant. Stages are shared with full_sweep.py: a
stage that one of them has finished is a cache hit of the other.
"""

import typer

from jobs.command_line.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.command_line.arguments import ConfigFile, DryRun, Force, Model, Overrides, usage  # noqa: E402
from jobs.command_line.config_command import ConfigCommand  # noqa: E402
from jobs.sweep.main import train_main  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=usage(__doc__), cls=ConfigCommand)
def main(
    model: Model,
    overrides: Overrides = None,
    config: ConfigFile = None,
    dry_run: DryRun = False,
    force: Force = None,
) -> None:
    """Run the job with the options of the command line."""
    raise typer.Exit(train_main(model, config, overrides or [], dry_run, force or []))


if __name__ == "__main__":
    app()
