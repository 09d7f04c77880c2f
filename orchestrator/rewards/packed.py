"""All prefix scores of a response in one forward pass of a causal reward model.

The trunk (prompt and response) is computed once. Each score is read at the end of a branch: a few
tokens (the closing suffix, or a candidate chunk with it) that see the trunk up to where they are
attached and themselves, with position ids that go on from there. A branch without tokens is *open*
scoring: the head at the trunk's own position. Scores equal those of separate forwards to float
error. Pure: tensors in, tensors out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Branch:
    """A score to read: ``token_ids`` appended to the first ``attach`` tokens of the trunk."""

    attach: int
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class PackedRow:
    """One trunk with its branches; the row's scores come in the order of ``branches``."""

    trunk_ids: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def tokens(self) -> int:
        """Tokens that one pass over the row computes."""
        return len(self.trunk_ids) + sum(len(branch.token_ids) for branch in self.branches)


@dataclass(frozen=True)
class PackedBatch:
    """B rows padded on the right to T positions, with up to K scores each.

    input_ids (B, T) int64; position_ids (B, T) int64; visible (B, T, T) bool, query by key;
    score_index (B, K) int64, positions to read; score_mask (B, K) bool, False on padding.
    """

    input_ids: Tensor
    position_ids: Tensor
    visible: Tensor
    score_index: Tensor
    score_mask: Tensor


def prefix_row(
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    cuts: Sequence[int],
    closing_ids: Sequence[int],
) -> PackedRow:
    """The row whose scores are r(x, y_<t) for t in ``cuts`` (token counts; t > |y| means whole y).

    ``closing_ids`` is the closing suffix for *closed* scoring, empty for *open* scoring.
    """
    size = len(response_ids)
    branches = (Branch(len(prompt_ids) + min(t, size), tuple(closing_ids)) for t in cuts)
    return PackedRow((*prompt_ids, *response_ids), tuple(branches))


def pack(rows: Sequence[PackedRow], pad_id: int, device: torch.device | str = "cpu") -> PackedBatch:
    """Packs rows into one batch. What stands on padding is never read, whatever ``pad_id`` is."""
    width = max(row.tokens for row in rows)
    most = max(len(row.branches) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    position_ids = torch.zeros((len(rows), width), dtype=torch.int64)
    visible = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)  # (B, T, T)
    score_index = torch.zeros((len(rows), most), dtype=torch.int64)
    score_mask = torch.zeros((len(rows), most), dtype=torch.bool)
    for b, row in enumerate(rows):
        size = len(row.trunk_ids)
        ids = list(row.trunk_ids)
        positions = list(range(size))
        visible[b, :size, :size] = torch.ones(size, size, dtype=torch.bool).tril()
        for k, branch in enumerate(row.branches):
            start, length = len(ids), len(branch.token_ids)
            if length:
                end = start + length
                visible[b, start:end, : branch.attach] = True
                visible[b, start:end, start:end] = torch.ones(length, length).tril().bool()
                ids += branch.token_ids
                positions += range(branch.attach, branch.attach + length)
            score_index[b, k] = start + length - 1 if length else branch.attach - 1
            score_mask[b, k] = True
        input_ids[b, : len(ids)] = torch.tensor(ids)
        position_ids[b, : len(ids)] = torch.tensor(positions)
    batch = (input_ids, position_ids, visible, score_index, score_mask)
    return PackedBatch(*(tensor.to(device) for tensor in batch))


def packed_scores(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Scores (B, K) of a packed batch, float32 or wider; those outside ``score_mask`` mean nothing.

    ``model`` is an AutoModelForSequenceClassification with one label and a causal backbone.
    """
    # The backbone's own dtype, not autocast's: transformers adds this mask to the attention logits.
    dtype = model.dtype
    hidden_positions = torch.zeros(batch.visible.shape, dtype=dtype, device=batch.visible.device)
    hidden_positions.masked_fill_(~batch.visible, torch.finfo(dtype).min)
    hidden = model.base_model(
        input_ids=batch.input_ids,
        attention_mask=hidden_positions[:, None],  # (B, 1, T, T), additive
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state  # (B, T, D)
    index = batch.score_index[..., None].expand(-1, -1, hidden.shape[-1])
    scores: Tensor = model.score(hidden.gather(1, index)).squeeze(-1)  # (B, K)
    return scores if scores.dtype == torch.float64 else scores.float()
