"""Options of the command line about a reward model: the same in every job that takes one.

Imports nothing heavy, so that `--help` and a wrong option answer at once.
"""

import os
from typing import Annotated as An
from typing import Literal

from typer import BadParameter
from typer import Option as Opt

from orchestrator import choices

CORES = os.cpu_count() or 1


def _kind(name: str) -> str:
    """Return the name of a scorer kind.

    Raises:
        typer.BadParameter: no kind has it.
    """
    from orchestrator.scorers.kind import check_kind  # imports all kinds

    try:
        return check_kind(name)
    except ValueError as error:
        raise BadParameter(f"{name!r}: {error}") from None


# The command's class adds the names of the kinds to the help.
Kind = An[str | None, Opt(parser=_kind, metavar="KIND", help="kind of the reward model")]
KindOption = An[list[str], Opt(help="option of the scorer kind: name=value; repeatable")]
Base = An[str | None, Opt(help="base model of a log ratio (its denominator)")]
Beta = An[float | None, Opt(help="factor of the log ratio; default: 1")]
Position = An[
    choices.Position,
    Opt(
        help="closed: score after the closing tokens of the chat template; open: at the last token"
        " of the prefix"
    ),
]
Aggregation = An[
    choices.Aggregation | None,
    Opt(help="how step rewards are combined; default: depends on the kind"),
]
StepDelimiter = An[str | None, Opt(help=r"text that ends a step; \n is a line end")]
StepTag = An[str | None, Opt(help="token at which a step's reward is read")]
ScoreLabel = An[int | None, Opt(min=0, help="index of the score in a head of several labels")]
Preset = An[str | None, Opt(help="family of public models: docs/public_models.md")]
StepFormat = An[list[str], Opt(help="field of the step format: name=value; repeatable")]
ScoreAt = An[
    str | None,
    Opt(help="token at which the score is read: its text, or its index from the end, such as -2"),
]
ScoreToken = An[int | None, Opt(min=0, help="id of the token whose logit is the score")]
FoldSystem = An[
    bool, Opt(help="put the system message into the user message if the template rejects it")
]
Threads = An[int | None, Opt(min=1, help="torch threads of each process")]
Device = An[Literal["cpu", "cuda"], Opt(help="cuda: one GPU per process")]
