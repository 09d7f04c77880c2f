"""Registered components on the command line: scorer kinds, and search methods with their fields.

The registries are imported only when they are needed, so that a wrong option is reported at once.
"""

from typing import Any

from jobs.command_line.job_command import JobCommand


class ScorerCommand(JobCommand):
    """A command with an option `--kind`, which names a registered kind of scorer."""

    resumes = True

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with the names of all kinds."""
        from orchestrator.scorers.kind import kinds_in_order

        for option in self.params:
            if option.name == "kind":
                kinds = ", ".join(kinds_in_order())
                option.help = f"{kinds}; default: read from the model's files"  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


class MethodCommand(ScorerCommand):
    """A command with an option `--method`, whose fields are arguments such as beams=4."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help with the names of all methods."""
        from orchestrator.search.method import methods_in_order

        for option in self.params:
            if option.name == "method":
                option.help = ", ".join(methods_in_order())  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; a field of a method that is written as an option is an error."""
        options = {
            name for option in self.params for name in (*option.opts, *option.secondary_opts)
        }
        for index, word in enumerate(args):
            name, equals, value = word.partition("=")
            if word == "--":
                break
            if name.startswith("--") and name not in options and name != "--help":
                field = name.removeprefix("--").replace("-", "_")
                if field in method_fields():
                    value = value if equals else next(iter(args[index + 1 :]), "VALUE")
                    ctx.fail(f"{name} is a field of the method, not an option:"
                             f" write {field}={value}")  # fmt: skip
        return list(super().parse_args(ctx, args))


def method_fields() -> set[str]:
    """Return the names of the fields of all methods."""
    from orchestrator.decoding.methods import method_fields as fields_of
    from orchestrator.search.method import METHODS

    return {field for name in METHODS for field in fields_of(name)}
