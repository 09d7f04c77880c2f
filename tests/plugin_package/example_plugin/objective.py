"""IPO: "A General Theoretical Paradigm to Understand Learning from Human Preferences", Eq. 17."""

from typing import TYPE_CHECKING

from orchestrator.objectives.log_ratios import PairObjective
from orchestrator.objectives.objective import register

if TYPE_CHECKING:
    from torch import Tensor


@register
class IPO(PairObjective):
    """The IPO loss: (h_w - h_l - 1 / (2 beta))^2 of each pair, with the log ratios h = r / beta."""

    name = "ipo"
    label = "IPO"

    @classmethod
    def pair_loss(cls, chosen: "Tensor", rejected: "Tensor", beta: float) -> "Tensor":
        """Return the sum of (h_w - h_l - 1 / (2 beta))^2."""
        return (((chosen - rejected) / beta - 1 / (2 * beta)) ** 2).sum()
