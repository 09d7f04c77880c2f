"""A model with the loss that trains it, as one module: DeepSpeed's hooks need one forward."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from orchestrator.checkpoints.checkpoint import (
    load_policy,
    load_reward_model,
    reward_model_from_policy,
)
from orchestrator.conversations.chat import Chat
from orchestrator.objectives.examples import Example
from orchestrator.objectives.objective import OBJECTIVES, LossContext
from orchestrator.training.checkpoint import all_reduce_sum
from orchestrator.training.job import TrainingJob
from orchestrator.training.plan import MicroBatch


class ModelWithLoss(nn.Module):
    """A model and the objective of its training.

    Args:
        job: the training.
        model: the model to train.
        chat: the model's tokenizer and template.
    """

    def __init__(self, job: TrainingJob, model: PreTrainedModel, chat: Chat) -> None:
        super().__init__()
        self.model, self._job = model, job
        self.objective = OBJECTIVES[job.objective]
        self._pad_id = chat.tokenizer.pad_token_id or 0
        self.closing_ids = chat.closing_ids if job.closed else ()
        self._step_mean = 0.0
        if job.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def context(self) -> LossContext:
        """What the objective computes losses with."""
        return LossContext(
            self.model,
            pad_id=self._pad_id,
            closing_ids=self.closing_ids,
            branch_memory_mib=self._job.branch_memory_mib,
            beta=self._job.beta,
            step_mean=self._step_mean,
        )

    def forward(self, rows: Sequence[Example]) -> tuple[Tensor, int]:
        """Return the loss sum of some rows, and how many of its terms are right."""
        with self.autocast():
            return self.objective.loss(self.context, rows)

    def begin_step(self, batches: Sequence[tuple[MicroBatch, Sequence[Example]]]) -> None:
        """Compute the mean over all rows of the step, if the objective needs one.

        All workers call it at the same time, each with its micro-batches and their rows.
        """
        if not self.objective.needs_step_mean:
            return
        totals = torch.zeros(2, dtype=torch.float64)
        for batch, rows in batches:
            with self.autocast():
                terms = self.objective.step_terms(self.context, rows)
            if batch.counts:
                totals += torch.tensor(terms, dtype=torch.float64)
        total, count = all_reduce_sum(totals, self.device).tolist()
        self._step_mean = total / max(count, 1.0)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def autocast(self) -> torch.autocast:
        """Return autocast in the precision of the job.

        The forward enters it, because DeepSpeed switches an outer one off.
        """
        on = self._job.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def num_loss_terms(self, rows: Sequence[Example]) -> int:
        """Return the number of terms of some rows in the loss."""
        return sum(self.objective.num_loss_terms(row) for row in rows)


def load_initial_model(job: TrainingJob) -> PreTrainedModel:
    """Load the model that a training starts from."""
    if job.start == "policy":
        return load_policy(job.checkpoint)
    if job.start == "reward":
        return load_reward_model(job.checkpoint, label=job.score_label)
    return reward_model_from_policy(job.checkpoint, job.seed)
