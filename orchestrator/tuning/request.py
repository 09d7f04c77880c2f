"""What a tuning is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["max", "min"]
Scheduler = Literal["asha", "fifo"]


@dataclass(frozen=True)
class Request:
    """The command line's options.

    Attributes:
        model: that is trained: policy, orm, reference or a variant.
        space: ``FIELD=NAME(ARGUMENTS)`` each.
        trials: configs to draw.
        metric: of the training, by which trials are compared.
        mode: whether more of it is better.
        concurrent: trials at once.
        scheduler: "asha" stops the worse half on the way, "fifo" none.
        named: options that the command line gives; the others have their defaults.
    """

    model: str
    space: Sequence[str]
    trials: int
    metric: str
    mode: Mode
    concurrent: int
    scheduler: Scheduler
    named: frozenset[str] = frozenset()
