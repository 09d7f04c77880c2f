"""The weighted Bradley-Terry objective over packed prefixes: Eq. 1 (ORM), Eq. 2 and Eq. 3 (SP-PRM).

A pair is one packed row: its prompt is computed once, and all its partial pairs from one pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB, packed_scores
from orchestrator.rewards.packed import prefix_row
from orchestrator.training.examples import PairExample


def bradley_terry(chosen: Tensor, rejected: Tensor, weights: Tensor) -> Tensor:
    """Sum of w * -log sigma(r_w - r_l) over all entries; shapes are equal.

    The caller divides by the global count of partial pairs (the mean of Eq. 2 and Eq. 3).
    """
    return -(weights * logsigmoid(chosen - rejected)).sum()


def pair_loss(
    model: PreTrainedModel,
    rows: Sequence[PairExample],
    closing_ids: tuple[int, ...],
    pad_id: int,
    branch_memory_mib: int = BRANCH_MEMORY_MIB,
) -> tuple[Tensor, int]:
    """Loss sum of some pairs, and how many of their partial pairs are ordered right.

    ``closing_ids`` is empty for open scoring; ``branch_memory_mib`` is that of ``packed_scores``.
    """
    packed = [
        prefix_row(
            row.prompt_ids,
            (row.chosen_ids, row.rejected_ids),
            (row.chosen_cuts, row.rejected_cuts),
            closing_ids,
        )
        for row in rows
    ]
    scores = packed_scores(model, packed, pad_id, branch_memory_mib)  # (B, 2 K)
    chosen = torch.cat([scores[i, : row.size] for i, row in enumerate(rows)])
    rejected = torch.cat([scores[i, row.size : 2 * row.size] for i, row in enumerate(rows)])
    weights = torch.tensor([w for row in rows for w in row.weights])
    loss = bradley_terry(chosen, rejected, weights.to(chosen))
    return loss, int((chosen > rejected).sum())
