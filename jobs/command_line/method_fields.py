"""A search method on the command line: its name, and its fields, which are no options.

The registry of methods is imported only when it is needed, so that a wrong option is reported at
once.
"""

from typing import Any

from typer.core import TyperCommand


class MethodCommand(TyperCommand):
    """A command with an option `--method`, whose fields are arguments such as beams=4."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help, with the names of all methods."""
        from orchestrator.search.method import methods_in_order

        for option in self.params:
            if option.name == "method":
                option.help = ", ".join(methods_in_order())  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)

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
    from orchestrator.decoding.methods import method_fields as fields_of
    from orchestrator.search.method import METHODS

    return {field for name in METHODS for field in fields_of(name)}
