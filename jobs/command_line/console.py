"""The console of a job: the terminal, or lines of a fixed width in a log."""

from rich.console import Console

LOG_WIDTH = 160  # columns where the output is no terminal


def job_console(stderr: bool = False) -> Console:
    """Return the console of standard output or of standard error.

    It prints text as it is: brackets of a path are not markup, ``:name:`` is not an emoji.
    """
    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console
