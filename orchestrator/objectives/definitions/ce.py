"""Cross-entropy of response labels: "Free process rewards without process labels"."""

from typing import TYPE_CHECKING

from orchestrator.objectives.log_ratios import ResponseObjective
from orchestrator.objectives.objective import register

if TYPE_CHECKING:
    from torch import Tensor


@register
class CrossEntropy(ResponseObjective):
    """The cross-entropy of labels: -(l log sigma(r) + (1 - l) log sigma(-r)) of each response."""

    name = "ce"
    label = "cross-entropy"

    @classmethod
    def response_loss(cls, rewards: "Tensor", labels: "Tensor", baseline: float) -> "Tensor":
        """Return the sum of -log sigma(r) of right and -log sigma(-r) of wrong responses."""
        import torch
        from torch.nn.functional import logsigmoid

        return -logsigmoid(torch.where(labels, rewards, -rewards)).sum()
