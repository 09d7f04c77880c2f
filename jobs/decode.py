"""Answer a file of prompts with your own policy, guided by your own reward model.

    python jobs/decode.py --policy P --reward R --method cbs --prompts F --out F beams=4 chunk=16

Give the same command again to resume an interrupted run. See docs/decoding.md.
"""

from importlib import import_module

import typer

from jobs.command_line.quiet import quieten

quieten(__file__)  # before any library that reads its settings at import

from jobs.batch.decode_arguments import DecodeArguments  # noqa: E402
from jobs.command_line.arguments import usage  # noqa: E402
from jobs.command_line.method_fields import MethodCommand  # noqa: E402
from jobs.command_line.options_command import options_command  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _run(arguments: DecodeArguments) -> int:
    """Run the job; its imports take seconds and are not needed for --help."""
    return int(import_module("jobs.batch.decode").decode_main(arguments))


main = options_command(DecodeArguments, _run)
app.command(help=usage(__doc__), cls=MethodCommand)(main)

if __name__ == "__main__":
    app()
