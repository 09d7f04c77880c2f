"""Supervised fine-tuning of the policy on demonstrations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from orchestrator.objectives.examples import TextExample
from orchestrator.objectives.objective import DataKind, LossContext, Objective, register

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # torch's label for positions without loss


@register
class LanguageModelling(Objective[TextExample]):
    """Next-token cross-entropy, -log pi_theta(y_t | x, y_<t), of each response token.

    The response includes the token that ends it.
    """

    name = "language_modelling"
    label = "language modelling"
    data_kind: ClassVar[DataKind | None] = "demonstrations"

    @classmethod
    def loss(cls, context: LossContext, rows: Sequence[TextExample]) -> "tuple[Tensor, int]":
        """Return the loss sum (nats) over response tokens, and how many are predicted right."""
        import torch
        from torch.nn.functional import cross_entropy

        device = next(context.model.parameters()).device
        width = max(len(row.prompt_ids) + len(row.response_ids) for row in rows)
        ids = torch.full((len(rows), width), context.pad_id, dtype=torch.int64)
        labels = torch.full((len(rows), width), IGNORED, dtype=torch.int64)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for i, row in enumerate(rows):
            start, end = len(row.prompt_ids), len(row.prompt_ids) + len(row.response_ids)
            ids[i, :end] = torch.tensor(row.prompt_ids + row.response_ids)
            labels[i, start:end] = ids[i, start:end]
            mask[i, :end] = 1
        output = context.model(input_ids=ids.to(device), attention_mask=mask.to(device))
        logits = output.logits[:, :-1].float()
        labels = labels[:, 1:].to(device)
        loss = cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels.reshape(-1),
            ignore_index=IGNORED, reduction="sum",
        )  # fmt: skip
        return loss, int((logits.argmax(-1) == labels).sum())

    @classmethod
    def num_loss_terms(cls, row: TextExample) -> int:
        """Return the number of response tokens."""
        return len(row.response_ids)
