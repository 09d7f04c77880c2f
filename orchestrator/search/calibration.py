"""What a method's thresholds may be computed from: measurements on prompts outside the test."""

from collections.abc import Sequence
from dataclasses import dataclass


class NotCalibrated(ValueError):
    """A threshold is not set, and no measurement gives it.

    Args:
        field: the method's field.
        reason: why it must be set, as a clause.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason


@dataclass(frozen=True)
class Calibration:
    """Measurements on calibration prompts, each empty if it was not made.

    Attributes:
        entropies: next-token entropies of the policy, in nats, before each token that it samples.
        rewards: the scorer's rewards of whole responses of the base policy.
    """

    entropies: Sequence[float] = ()
    rewards: Sequence[float] = ()
