"""Supervised fine-tuning: next-token cross-entropy over the response and its closing."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from orchestrator.training.examples import TextExample

IGNORED = -100  # torch's label for positions without loss


def response_loss(
    model: PreTrainedModel, rows: Sequence[TextExample], pad_id: int, device: torch.device | str
) -> tuple[Tensor, int]:
    """Loss sum (nats) over the response tokens of some rows, and how many are predicted right."""
    width = max(len(row.prompt_ids) + len(row.response_ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for i, row in enumerate(rows):
        start, end = len(row.prompt_ids), len(row.prompt_ids) + len(row.response_ids)
        ids[i, :end] = torch.tensor(row.prompt_ids + row.response_ids)
        labels[i, start:end] = ids[i, start:end]
        mask[i, :end] = 1
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1].float()
    labels = labels[:, 1:].to(device)
    loss = cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1),
        ignore_index=IGNORED, reduction="sum",
    )  # fmt: skip
    return loss, int((logits.argmax(-1) == labels).sum())
