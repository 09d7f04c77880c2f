"""DPO ("Direct Preference Optimization", Eq. 7) over the log ratios of pairs."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Sum over N pairs of -log sigma(r_w - r_l).

    ``chosen`` and ``rejected`` (N,) are rewards: beta times the log ratio of a whole response. The
    caller divides by the global count of pairs.
    """
    return -logsigmoid(chosen - rejected).sum()
