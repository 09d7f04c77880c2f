r"""Tune config fields for one model by Ray Tune; each trial trains that model.

    python jobs/tune.py MODEL --space 'training.prm.learning_rate=loguniform(1e-4,1e-2)' \
        [--space 'FIELD=choice(A,B,...)'] [--trials 8] [--config FILE] [key.sub=value ...]

Distributions: choice, uniform, loguniform, quniform, randint. The best config is written as a YAML
that jobs/full_sweep.py and jobs/train.py take.
"""

from pathlib import Path
from typing import Annotated

import typer

from jobs.command_line.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.command_line.arguments import ConfigFile, Model, Overrides, set_by_user, usage  # noqa: E402
from jobs.command_line.config_command import ConfigCommand  # noqa: E402
from jobs.tuning.main import tune_main  # noqa: E402
from orchestrator.tuning.options import Mode, Scheduler, TuningOptions  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=usage(__doc__), cls=ConfigCommand)
def main(
    context: typer.Context,
    model: Model,
    overrides: Overrides = None,
    space: Annotated[list[str] | None, typer.Option(help="FIELD=DISTRIBUTION; repeatable")] = None,
    trials: Annotated[int, typer.Option(help="number of trials")] = 8,
    metric: Annotated[
        str, typer.Option(help="metric of the training to optimize")
    ] = "held_out_accuracy",
    mode: Annotated[Mode, typer.Option(help="direction of the metric")] = "max",
    concurrent: Annotated[int, typer.Option(help="trials that run at once")] = 1,
    scheduler: Annotated[Scheduler, typer.Option(help="asha stops bad trials early")] = "asha",
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="YAML file for the best config")] = None,
) -> None:
    """Run the job with the options of the command line."""
    options = TuningOptions(
        model, space or [], trials, metric, mode, concurrent, scheduler, set_by_user(context)
    )
    raise typer.Exit(tune_main(options, config, overrides or [], out))


if __name__ == "__main__":
    app()
