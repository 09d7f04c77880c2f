"""The console of a job: the terminal, or lines of a fixed width in a log; errors on it."""

import typer
from rich.console import Console

from jobs.command_line.exit_codes import BAD_CONFIG

LOG_WIDTH = 160  # columns where the output is no terminal


def job_console(stderr: bool = False) -> Console:
    """Return the console of standard output or of standard error.

    It prints text as it is: brackets of a path are not markup, ``:name:`` is not an emoji.
    """
    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def printed_exit(error: Exception) -> typer.Exit:
    """Print an error of an option or a plug-in; return the exception that exits with code 2."""
    job_console(stderr=True).print(f"error: {error}", style="red", soft_wrap=True)
    return typer.Exit(BAD_CONFIG)
