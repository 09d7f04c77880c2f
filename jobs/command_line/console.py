"""The console of a job: the terminal, or lines of a fixed width in a log."""

from rich.console import Console

LOG_WIDTH = 160  # columns where the output is no terminal


def job_console() -> Console:
    """Return the console of standard output."""
    console = Console()
    return console if console.is_terminal else Console(width=LOG_WIDTH)
