"""KTO: "Model Alignment as Prospect Theoretic Optimization", Eq. 7, for unpaired responses."""

from typing import TYPE_CHECKING, ClassVar

from orchestrator.objectives.log_ratios import ResponseObjective
from orchestrator.objectives.objective import register

if TYPE_CHECKING:
    from torch import Tensor


@register
class KTO(ResponseObjective):
    """The KTO loss: lambda_D (1 - sigma(r - z)) if desirable, else lambda_U (1 - sigma(z - r)).

    z is beta times the estimate of KL(pi_theta || pi_ref) over the step; a negative estimate counts
    as 0, and no gradient goes through it.

    Attributes:
        desirable_weight: lambda_D.
        undesirable_weight: lambda_U.
    """

    name = "kto"
    label = "KTO"
    needs_unrelated = True
    needs_step_mean = True

    desirable_weight: ClassVar[float] = 1.0
    undesirable_weight: ClassVar[float] = 1.0

    @classmethod
    def response_loss(cls, rewards: "Tensor", labels: "Tensor", baseline: float) -> "Tensor":
        """Return the sum of lambda_D (1 - sigma(r - z)) and lambda_U (1 - sigma(z - r))."""
        import torch

        margin = rewards - max(baseline, 0.0)
        # 1 - sigma(a) = sigma(-a), which keeps its digits where sigma(a) is near 1.
        desirable = cls.desirable_weight * torch.sigmoid(-margin)
        undesirable = cls.undesirable_weight * torch.sigmoid(margin)
        return torch.where(labels, desirable, undesirable).sum()
