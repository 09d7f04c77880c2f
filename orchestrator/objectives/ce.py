"""Cross-entropy of response-level labels ("Free process rewards without process labels")."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def cross_entropy(rewards: Tensor, labels: Tensor) -> Tensor:
    """Sum over N responses of -(l log sigma(r) + (1 - l) log sigma(-r)).

    ``rewards`` (N,) are beta times the log ratio of a whole response, ``labels`` (N,) bool say
    which are right. The caller divides by the global count of responses.
    """
    return -logsigmoid(torch.where(labels, rewards, -rewards)).sum()
