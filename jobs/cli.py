"""The command `prm`: every job as a subcommand with the arguments of its file in jobs/."""

import typer

from jobs import bench, decode, full_sweep, report, samples, score, train, tune
from jobs.command_line.arguments import usage
from jobs.command_line.config_command import ConfigCommand
from jobs.command_line.job_command import JobCommand
from jobs.command_line.method_fields import MethodCommand, ScorerCommand

HELP = "Process reward models from preference data, and reward-guided decoding."

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=HELP)
app.command("sweep", cls=ConfigCommand, help=usage(full_sweep.__doc__))(full_sweep.main)
app.command("train", cls=ConfigCommand, help=usage(train.__doc__))(train.main)
app.command("tune", cls=ConfigCommand, help=usage(tune.__doc__))(tune.main)
app.command("score", cls=ScorerCommand, help=usage(score.__doc__))(score.main)
app.command("decode", cls=MethodCommand, help=usage(decode.__doc__))(decode.main)
app.command("report", cls=JobCommand, help=usage(report.__doc__))(report.main)
app.command("samples", cls=JobCommand, help=usage(samples.__doc__))(samples.main)
app.add_typer(bench.app, name="bench")


if __name__ == "__main__":
    app()
