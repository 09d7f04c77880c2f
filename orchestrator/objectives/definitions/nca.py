"""NCA: "Noise Contrastive Alignment of Language Models with Explicit Rewards", for pairs."""

from typing import TYPE_CHECKING

from orchestrator.objectives.log_ratios import PairObjective
from orchestrator.objectives.objective import register

if TYPE_CHECKING:
    from torch import Tensor


@register
class NCA(PairObjective):
    """The NCA loss: -log sigma(r_w) - 1/2 log sigma(-r_w) - 1/2 log sigma(-r_l) of each pair.

    Unlike DPO it depends on each reward, not only on their difference.
    """

    name = "nca"
    label = "NCA"

    @classmethod
    def pair_loss(cls, chosen: "Tensor", rejected: "Tensor", beta: float) -> "Tensor":
        """Return the sum of -log sigma(r_w) - 1/2 log sigma(-r_w) - 1/2 log sigma(-r_l)."""
        from torch.nn.functional import logsigmoid

        against = logsigmoid(-chosen) + logsigmoid(-rejected)
        return -(logsigmoid(chosen) + 0.5 * against).sum()
