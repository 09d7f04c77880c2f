"""Score prefixes of a file's responses with any reward model, streamed through Ray Data.

    python jobs/score.py --input rows.jsonl --output scored --reward CHECKPOINT --prefixes 5,10,20

Rows are {prompt, response}, {prompt, chosen, rejected} or another form of docs/data.md. Rows that
cannot be scored go to the rejects. Give the same command again to resume an interrupted run.
See docs/scorers.md.
"""

from importlib import import_module

import typer

from jobs.command_line.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.batch.score_arguments import ScoreArguments  # noqa: E402
from jobs.command_line.arguments import usage  # noqa: E402
from jobs.command_line.method_fields import ScorerCommand  # noqa: E402
from jobs.command_line.options_command import options_command  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _run(arguments: ScoreArguments) -> int:
    """Run the job; its imports take seconds and are not needed for --help."""
    return int(import_module("jobs.batch.score").score_main(arguments))


main = options_command(ScoreArguments, _run)
app.command(help=usage(__doc__), cls=ScorerCommand)(main)

if __name__ == "__main__":
    app()
