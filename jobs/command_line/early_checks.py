"""Checks of options that import nothing that computes, and the error that ends a job early."""

import typer

from jobs.command_line.console import job_console
from jobs.command_line.exit_codes import BAD_CONFIG
from orchestrator.config.errors import ConfigError, shown
from orchestrator.config.output_paths import check_uri, is_file


def check_file(option: str, source: str, suffixes: tuple[str, ...], valid: str) -> None:
    """Check that a file exists and has one of the suffixes; for a URI, its suffix and protocol.

    Raises:
        ConfigError: the file does not exist, its suffix is another one, or the protocol is not
            supported.
    """
    if not source.endswith(suffixes):
        raise ConfigError(f"{option} = {shown(source)}: unknown format; valid: {valid}")
    if "://" in source:
        check_uri(option, source)
    elif not is_file(source):
        raise ConfigError(f"{option} = {shown(source)}: no such file; valid: {valid}")


def exit_with(error: Exception) -> typer.Exit:
    """Print an error of an option or a plug-in; return the exception that exits with code 2."""
    job_console(stderr=True).print(f"error: {error}", style="red", soft_wrap=True)
    return typer.Exit(BAD_CONFIG)
