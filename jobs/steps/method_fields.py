"""A search method on the command line: its name, and its fields, which are no options.

Imports nothing heavy, so that `--help` and a wrong option answer at once.
"""

from dataclasses import fields
from typing import Any

from typer.core import TyperCommand

# Those of the registry, whose modules `--help` does not wait for.
METHOD_NAMES = (
    "base, greedy, bon, weighted_bon, vote, args, args_stochastic, tbs, cbs, cards, general,"
    " step_beam, dvts"
)


class MethodCommand(TyperCommand):
    """A command that says how a method's field is written where it is given as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the command line; a field of a method among the options ends it."""
        known = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        for place, word in enumerate(args):
            name, equals, value = word.partition("=")
            if word == "--":
                break
            if name.startswith("--") and name not in known and name != "--help":
                field = name.removeprefix("--").replace("-", "_")
                if field in method_fields():
                    value = value if equals else next(iter(args[place + 1 :]), "VALUE")
                    ctx.fail(f"{name} is a field of the method, not an option:"
                             f" write {field}={value}")  # fmt: skip
        return list(super().parse_args(ctx, args))


def method_fields() -> set[str]:
    """The names of all methods' fields."""
    from orchestrator.search.registry import METHODS

    return {field.name for method in METHODS.values() for field in fields(method.parameters)}
