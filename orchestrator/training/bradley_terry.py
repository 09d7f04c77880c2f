"""The weighted Bradley-Terry objective over packed prefixes: Eq. 1 (ORM), Eq. 2 and Eq. 3 (SP-PRM).

Each response of a pair is one packed row; its partial pairs are read from one forward pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from orchestrator.rewards.packed import pack, packed_scores, prefix_row
from orchestrator.training.examples import PairExample


def bradley_terry(chosen: Tensor, rejected: Tensor, weights: Tensor) -> Tensor:
    """Sum of w * -log sigma(r_w - r_l) over all entries; shapes are equal, padding has weight 0.

    The caller divides by the global count of partial pairs (the mean of Eq. 2 and Eq. 3).
    """
    return -(weights * logsigmoid(chosen - rejected)).sum()


def pair_loss(
    model: PreTrainedModel,
    rows: Sequence[PairExample],
    closing_ids: Sequence[int],
    pad_id: int,
    device: torch.device | str,
) -> tuple[Tensor, int]:
    """Loss sum of some pairs, and how many of their partial pairs are ordered right.

    ``closing_ids`` is empty for open scoring.
    """
    packed = [prefix_row(r.prompt_ids, r.chosen_ids, r.chosen_cuts, closing_ids) for r in rows]
    packed += [prefix_row(r.prompt_ids, r.rejected_ids, r.rejected_cuts, closing_ids) for r in rows]
    batch = pack(packed, pad_id, device)
    chosen, rejected = packed_scores(model, batch).split(len(rows))  # (B, K) each
    weights = torch.zeros_like(chosen)
    for i, row in enumerate(rows):
        weights[i, : len(row.weights)] = torch.tensor(row.weights, dtype=weights.dtype)
    right = ((chosen > rejected) & batch.score_mask[: len(rows)]).sum()
    return bradley_terry(chosen, rejected, weights), int(right)
