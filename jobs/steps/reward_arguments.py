"""Options of the command line about a reward model: the same in every job that takes one.

Imports nothing heavy, so that `--help` and a wrong option answer at once.
"""

import os
from typing import Annotated as An
from typing import Literal

from typer import Option as Opt

CORES = os.cpu_count() or 1

Kind = An[
    Literal["sequence", "encoder", "step_tag", "log_ratio"] | None,
    Opt(help="of the reward model; default: what its files tell"),
]
Base = An[str | None, Opt(help="of a log ratio: its denominator")]
Beta = An[float | None, Opt(help="of a log ratio: its factor; default 1")]
Position = An[Literal["closed", "open"], Opt(help="where a prefix is scored")]
Aggregation = An[
    Literal["last", "min", "mean", "sum", "product"] | None,
    Opt(help="of step rewards; default: the kind's own"),
]
StepDelimiter = An[str | None, Opt(help=r"text that ends a step; \n is a line end")]
StepTag = An[str | None, Opt(help="where a step's reward is read")]
ScoreLabel = An[int | None, Opt(min=0, help="of a head of several labels: the index of the score")]
Preset = An[str | None, Opt(help="a family of public models: docs/public_models.md")]
StepFormat = An[list[str] | None, Opt(help="a field of the step format, name=value; repeatable")]
ScoreAt = An[str | None, Opt(help="token of the template's closing: text, or index -2")]
ScoreToken = An[int | None, Opt(min=0, help="id of the token whose logit is the score")]
FoldSystem = An[bool, Opt(help="a refused system message: in the user's")]
Threads = An[int | None, Opt(min=1, help="torch threads of each; default: a share")]
Device = An[Literal["cpu", "cuda"], Opt(help="cuda: a GPU for each actor")]
