"""The options that jobs/decode.py and jobs/score.py share, and how both check and record them.

Imports nothing that computes, so that `--help` and a wrong option answer at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated as An
from typing import ClassVar, Self

from typer import Option as Opt

from jobs.batch.scorer_options import ScorerOptions
from jobs.command_line import reward_arguments
from jobs.command_line.reward_arguments import CORES
from orchestrator.config.checks import check_checkpoint
from orchestrator.config.errors import ConfigError

Identity = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class FileJobOptions(ScorerOptions):
    """The options of a job that maps one input file to one output; its `--help` explains them.

    Attributes:
        PATHS: fields that name files, folders or hub models; their contents decide the output.
        DECIDING: other fields that decide the output, besides those of the reward model.
    """

    PATHS: ClassVar[tuple[str, ...]] = ()
    DECIDING: ClassVar[tuple[str, ...]] = ()

    actors: An[int, Opt(min=1, help="number of actors, each with its own copy of the models")] = 1
    threads: reward_arguments.Threads = None
    shard_rows: An[
        int,
        Opt("--shard-rows", "--part-rows", min=1, help="number of rows in an output shard"),
    ] = 256
    device: reward_arguments.Device = "cpu"
    force: An[bool, Opt("--force", help="overwrite an output that was made with other options")] = (
        False
    )

    @property
    def threads_per_actor(self) -> int:
        """Torch threads of each actor; by default the cores are divided among the actors."""
        return self.threads or max(CORES // self.actors, 1)

    def resolved(self) -> Self:
        """Return the options with absolute paths, since actors run in other folders."""
        values = vars(self).copy()
        for name in self.PATHS:
            if values[name] is not None:
                values[name] = absolute(values[name])
        return type(self)(**values)

    def deciding_values(self) -> dict[str, object]:
        """Return the values of DECIDING by option, as JSON has them."""
        values = {option(name): getattr(self, name) for name in self.DECIDING}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def check_checkpoints(self, *names: str) -> None:
        """Check that the checkpoints in these fields exist; None is skipped.

        Raises:
            ConfigError: one does not exist.
        """
        for name in names:
            if (value := getattr(self, name)) is not None:
                check_checkpoint(option(name), value)

    def check_effects(self, without_effect: Mapping[str, str]) -> None:
        """Check that the command line sets no option that has no effect.

        Args:
            without_effect: fields that have no effect with the other options, each with the reason.

        Raises:
            ConfigError: the command line sets one of them.
        """
        for name, reason in without_effect.items():
            if name in self.set_by_user:
                raise ConfigError(
                    f"{option(name)} = {getattr(self, name)!r}: it has no effect: {reason};"
                    f" valid: leave out {option(name)}"
                )


def option(name: str) -> str:
    """Return the option of the command line that sets a field."""
    return f"--{name.replace('_', '-')}"


def absolute(path: str) -> str:
    """Return the absolute path of a file or folder that exists; hub names and URIs unchanged."""
    local = Path(path).expanduser()
    return str(local.resolve()) if local.exists() else path
