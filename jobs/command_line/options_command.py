"""A typer command whose options are the fields of a dataclass.

So each option is declared once: its type, its default and its help text.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Annotated, ClassVar, Protocol, TypeVar, get_origin, get_type_hints

import typer

from jobs.command_line.arguments import set_by_user
from jobs.command_line.console import printed_exit
from orchestrator.config.errors import ConfigError

CONTEXT = "context"


class Options(Protocol):
    """A dataclass of options; fields without an Annotated type are no options."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    def __init__(self, **options: object) -> None: ...

    def check_early(self) -> None:
        """Raise ConfigError for a wrong option, without importing what computes."""


OptionsT = TypeVar("OptionsT", bound=Options)


def options_command(
    options_type: type[OptionsT], run: Callable[[OptionsT], int]
) -> Callable[..., None]:
    """Return a function for ``typer.Typer.command``.

    Args:
        options_type: the dataclass; its field ``set_by_user`` gets the names of the fields that the
            user has set.
        run: runs the job with checked options and returns the exit code.
    """
    hints = get_type_hints(options_type, include_extras=True)
    options = [
        field for field in fields(options_type) if get_origin(hints[field.name]) is Annotated
    ]
    options.sort(key=_has_default)  # required options come first in the help

    def command(context: typer.Context, **values: object) -> None:
        # typer passes None for an empty list.
        unset = {name for name, value in values.items() if value is None}
        chosen = {name: value for name, value in values.items() if name not in unset}
        arguments = options_type(**chosen, set_by_user=set_by_user(context))
        try:
            arguments.check_early()
        except ConfigError as error:
            raise printed_exit(error) from None
        raise typer.Exit(run(arguments))

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            field.name, keyword, annotation=hints[field.name], default=_default(field)
        )
        for field in options
    ]
    context = inspect.Parameter(CONTEXT, keyword, annotation=typer.Context)
    command.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (context, *parameters)}
    return command


def _has_default(field: Field[object]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _default(field: Field[object]) -> object:
    """Return the default of an option; typer has None for an empty list."""
    if field.default is MISSING:
        return None if _has_default(field) else inspect.Parameter.empty
    return None if field.default == () else field.default
