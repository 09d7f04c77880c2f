"""DPO: "Direct Preference Optimization", Eq. 7."""

from typing import TYPE_CHECKING

from orchestrator.objectives.log_ratios import PairObjective
from orchestrator.objectives.objective import register

if TYPE_CHECKING:
    from torch import Tensor


@register
class DPO(PairObjective):
    """The DPO loss: -log sigma(r_w - r_l) of each pair."""

    name = "dpo"
    label = "DPO"

    @classmethod
    def pair_loss(cls, chosen: "Tensor", rejected: "Tensor", beta: float) -> "Tensor":
        """Return the sum of -log sigma(r_w - r_l)."""
        from torch.nn.functional import logsigmoid

        return -logsigmoid(chosen - rejected).sum()
