"""Measurements on calibration prompts, from which a method's thresholds may be computed."""

from collections.abc import Sequence
from dataclasses import dataclass


class NotCalibrated(ValueError):
    """A threshold is neither set nor computable from measurements.

    Args:
        field: the method's field.
        reason: why it must be set, as a clause.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason


@dataclass(frozen=True)
class Calibration:
    """Measurements on calibration prompts, each empty if it was not measured.

    Attributes:
        entropies: next-token entropies of the policy, in nats, before each sampled token.
        rewards: the scorer's rewards of full responses of the base policy.
    """

    entropies: Sequence[float] = ()
    rewards: Sequence[float] = ()
