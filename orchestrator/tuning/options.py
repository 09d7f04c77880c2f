"""The options of a tuning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["max", "min"]
Scheduler = Literal["asha", "fifo"]


@dataclass(frozen=True)
class TuningOptions:
    """The options of a tuning, as on the command line.

    Attributes:
        model: model to train: policy, orm, reference or a variant.
        space: dimensions, each as ``FIELD=NAME(ARGUMENTS)``.
        trials: number of configs to draw.
        metric: metric of the training by which trials are compared.
        mode: "max" if a higher value is better, "min" if a lower one is.
        concurrent: trials that run at the same time.
        scheduler: "asha" stops the worse half of the trials early, "fifo" stops none.
        set_by_user: options that the command line sets; the others have their defaults.
    """

    model: str
    space: Sequence[str]
    trials: int
    metric: str
    mode: Mode
    concurrent: int
    scheduler: Scheduler
    set_by_user: frozenset[str] = frozenset()
