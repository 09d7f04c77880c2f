"""KTO ("Model Alignment as Prospect Theoretic Optimization", Eq. 7): unpaired responses."""

import torch
from torch import Tensor


def kto(
    rewards: Tensor,
    labels: Tensor,
    baseline: float,
    desirable: float = 1.0,
    undesirable: float = 1.0,
) -> Tensor:
    """Sum over N responses of lambda_D (1 - sigma(r - z)) or lambda_U (1 - sigma(z - r)).

    ``rewards`` (N,) are beta times the log ratio of a whole response, ``labels`` (N,) bool say
    which are desirable. ``baseline`` is z, in the unit of rewards: the estimate of KL(pi_theta ||
    pi_ref) in nats, already times beta; a negative estimate counts as 0. A number, so no gradient
    goes through it. The caller divides by the global count of responses.
    """
    size = rewards - max(baseline, 0.0)
    # 1 - sigma(a) = sigma(-a), without the loss of digits where sigma(a) is near 1.
    losses = torch.where(
        labels, desirable * torch.sigmoid(-size), undesirable * torch.sigmoid(size)
    )
    return losses.sum()
