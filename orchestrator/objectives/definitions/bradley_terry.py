"""Bradley-Terry: Eq. 1 (ORM), Eq. 2 and Eq. 3 (SP-PRM)."""

from typing import TYPE_CHECKING

from orchestrator.objectives.objective import register
from orchestrator.objectives.partial_pairs import PartialPairObjective

if TYPE_CHECKING:
    from torch import Tensor


@register
class BradleyTerry(PartialPairObjective):
    """The weighted Bradley-Terry loss: w * -log sigma(r_w - r_l) of each partial pair.

    Eq. 1 has one partial pair of weight 1, the full responses; the mean over partial pairs is Eq. 2
    with weights of 1 and Eq. 3 with the reference weights.
    """

    name = "bradley_terry"
    label = "Bradley-Terry"

    @classmethod
    def pair_loss(cls, chosen: "Tensor", rejected: "Tensor", weights: "Tensor") -> "Tensor":
        """Return the sum of w * -log sigma(r_w - r_l)."""
        from torch.nn.functional import logsigmoid

        return -(weights * logsigmoid(chosen - rejected)).sum()
