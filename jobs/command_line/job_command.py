"""The typer command class of the jobs: how a plug-in's error and a stop signal end a job."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand

from jobs.command_line.console import job_console, printed_exit
from jobs.command_line.stop_signals import interrupt_on_stop_signals, interrupted_exit_code
from orchestrator.registry import PluginError


class JobCommand(TyperCommand):
    """A command that ends with one line after a PluginError (exit code 2) or a stop signal.

    The registries may be read by the help, by the parsing of options and by the job. Contexts are
    untyped, since versions of typer use click's types or copies of them.

    Attributes:
        resumes: whether the same command goes on after an interrupt.
    """

    resumes = False

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Parse the command line; shows the help if it is one of the options."""
        with _plugin_errors_shown():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the job; after a stop signal its exit code is 128 + the signal's number."""
        interrupt_on_stop_signals()
        try:
            with _plugin_errors_shown():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            resume = ": run the same command again to resume" if self.resumes else ""
            job_console().print(f"interrupted{resume}")
            raise typer.Exit(interrupted_exit_code()) from None


@contextmanager
def _plugin_errors_shown() -> Iterator[None]:
    try:
        yield
    except PluginError as error:
        raise printed_exit(error) from None
