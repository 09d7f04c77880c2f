"""NCA for pairs ("Noise Contrastive Alignment of Language Models with Explicit Rewards")."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def nca(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Sum over N pairs of -log sigma(r_w) - 1/2 log sigma(-r_w) - 1/2 log sigma(-r_l).

    ``chosen`` and ``rejected`` (N,) are rewards: beta times the log ratio of a whole response.
    Unlike DPO it looks at each response's own size, not at the difference alone. The caller
    divides by the global count of pairs.
    """
    against = logsigmoid(-chosen) + logsigmoid(-rejected)
    return -(logsigmoid(chosen) + 0.5 * against).sum()
