"""The objectives by name: a model with its loss, so that DeepSpeed's hooks see one forward."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from orchestrator.engines.chat import Chat
from orchestrator.engines.checkpoints import (
    load_policy,
    load_reward_model,
    reward_model_from_policy,
)
from orchestrator.training.bradley_terry import pair_loss
from orchestrator.training.examples import Example, PairExample
from orchestrator.training.job import TrainingJob
from orchestrator.training.language_modelling import response_loss


class Objective(nn.Module):
    """A model and the loss that trains it."""

    def __init__(self, job: TrainingJob, model: PreTrainedModel, chat: Chat) -> None:
        super().__init__()
        self.model, self._job = model, job
        self.pad_id = chat.tokenizer.pad_token_id or 0
        self.closing_ids = chat.closing_ids if job.closed else ()
        if job.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    def forward(self, rows: Sequence[Example]) -> tuple[Tensor, int]:
        """Loss sum of some rows, and how many tokens or partial pairs are right."""
        with self.autocast():
            if self._job.objective == "language_modelling":
                return response_loss(self.model, rows, self.pad_id, self.device)  # type: ignore[arg-type]
            return pair_loss(self.model, rows, self.closing_ids, self.pad_id)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def autocast(self) -> torch.autocast:
        """The job's precision. In the forward, since DeepSpeed switches an outer one off."""
        on = self._job.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def terms(self, row: Example) -> int:
        """What the loss is a mean over: partial pairs, or response tokens."""
        return row.size if isinstance(row, PairExample) else len(row.response_ids)


def start_model(job: TrainingJob) -> PreTrainedModel:
    """The model that a training starts from."""
    if job.start == "policy":
        return load_policy(job.checkpoint)
    if job.start == "reward":
        return load_reward_model(job.checkpoint)
    return reward_model_from_policy(job.checkpoint, job.seed)
