"""Arguments that several entry points have, and which options the user has set."""

from pathlib import Path
from textwrap import dedent
from typing import Annotated

import typer
from rich.markup import escape

BY_THE_USER = ("COMMANDLINE", "ENVIRONMENT")  # click's names for values that the user sets
Model = Annotated[str, typer.Argument(help="policy, orm, reference or the name of a variant")]
Overrides = Annotated[list[str] | None, typer.Argument(help="config fields as key.sub=value")]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file; default: the embedded help desk")]
DryRun = Annotated[bool, typer.Option(help="print the plan and exit")]
Force = Annotated[
    list[str] | None, typer.Option(help="run this stage, and all that depend on it, again")
]


def usage(doc: str | None) -> str:
    """Return a module's docstring as help text: paragraphs unwrapped, brackets not as markup."""
    paragraphs = (doc or "").strip().split("\n\n")
    lines = (dedent(p) if p.startswith(" ") else " ".join(p.split()) for p in paragraphs)
    return escape("\n\n".join(lines))


def set_by_user(context: typer.Context) -> frozenset[str]:
    """Return the parameters that the user has set; the others have their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(
        name for name, source in sources.items() if source and source.name in BY_THE_USER
    )
