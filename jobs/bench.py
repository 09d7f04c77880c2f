"""Benchmarks of this project, each measured in one run.

`rewards` and `search` compare with baseline implementations, `pools` and `threads` compare
settings.

    python jobs/bench.py rewards [--only tlt_closed] [--json FILE] [--device cuda]
    python jobs/bench.py search --model smollm2 [--only steps] [--json FILE]
    python jobs/bench.py search [--only args30] [--position closed] [--json FILE] [--device cuda]
    python jobs/bench.py pools [--json FILE]
    python jobs/bench.py threads [--json FILE]

Prints a table and one line of JSON. Timings differ between machines; compare the ratios.
"""

import typer

from jobs.command_line.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.benchmarks import commands  # noqa: E402
from jobs.command_line.arguments import usage  # noqa: E402
from jobs.command_line.job_command import JobCommand  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=usage(__doc__))
for command in (commands.rewards, commands.search, commands.pools, commands.threads):
    app.command(cls=JobCommand)(command)


if __name__ == "__main__":
    app()
