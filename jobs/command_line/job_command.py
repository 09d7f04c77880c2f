"""The typer command class of the jobs: a plug-in that cannot be used ends the job in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperCommand

from jobs.command_line.console import printed_exit
from orchestrator.registry import PluginError


class JobCommand(TyperCommand):
    """A command that prints a PluginError as one sentence and exits with code 2.

    The registries may be read by the help, by the parsing of options and by the job. Contexts are
    untyped, since versions of typer use click's types or copies of them.
    """

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Parse the command line; shows the help if it is one of the options."""
        with _plugin_errors_shown():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the job."""
        with _plugin_errors_shown():
            return super().invoke(ctx)


@contextmanager
def _plugin_errors_shown() -> Iterator[None]:
    try:
        yield
    except PluginError as error:
        raise printed_exit(error) from None
