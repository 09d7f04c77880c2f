"""The objectives by name: a model with its loss, so that DeepSpeed's hooks see one forward."""

from collections.abc import Sequence
from typing import cast, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from orchestrator.checkpoints.checkpoint import (
    load_policy,
    load_reward_model,
    reward_model_from_policy,
)
from orchestrator.conversations.chat import Chat
from orchestrator.objectives.bradley_terry import pair_loss
from orchestrator.objectives.implicit import (
    ImplicitExample,
    ImplicitObjective,
    implicit_loss,
    kl_terms,
    loss_terms,
)
from orchestrator.objectives.language_modelling import response_loss
from orchestrator.training.checkpoint import summed
from orchestrator.training.examples import PairExample, TextExample
from orchestrator.training.files import Example
from orchestrator.training.job import TrainingJob
from orchestrator.training.plan import MicroBatch


class Objective(nn.Module):
    """A model and the loss that trains it."""

    def __init__(self, job: TrainingJob, model: PreTrainedModel, chat: Chat) -> None:
        super().__init__()
        self.model, self._job = model, job
        self.pad_id = chat.tokenizer.pad_token_id or 0
        self.closing_ids = chat.closing_ids if job.closed else ()
        self.branch_memory_mib = job.branch_memory_mib
        self._kl = 0.0
        if job.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    def forward(self, rows: Sequence[Example]) -> tuple[Tensor, int]:
        """Loss sum of some rows, and how many tokens, (partial) pairs or responses are right."""
        with self.autocast():
            if self._job.objective == "language_modelling":
                texts = cast(Sequence[TextExample], rows)
                return response_loss(self.model, texts, self.pad_id, self.device)
            if self._job.objective == "bradley_terry":
                pairs = cast(Sequence[PairExample], rows)
                return pair_loss(
                    self.model, pairs, self.closing_ids, self.pad_id, self.branch_memory_mib
                )
            labelled = cast(Sequence[ImplicitExample], rows)
            return implicit_loss(
                self.model, labelled, self._job.objective, self._job.beta, self.pad_id, self._kl
            )

    def begin_step(self, batches: Sequence[tuple[MicroBatch, Sequence[Example]]]) -> None:
        """What a step's loss needs to know of all its rows, of all workers: KTO's KL term.

        All workers call it, each with its micro-batches and their rows.
        """
        if self._job.objective != "kto":
            return
        found = torch.zeros(2, dtype=torch.float64)
        for batch, rows in batches:
            with self.autocast():
                terms = kl_terms(self.model, cast(Sequence[ImplicitExample], rows), self.pad_id)
            if batch.counts:
                found += torch.tensor(terms, dtype=torch.float64)
        total, count = summed(found, self.device).tolist()
        self._kl = max(total / max(count, 1.0), 0.0)

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
        """What the loss is a mean over: response tokens, (partial) pairs, or responses."""
        if isinstance(row, TextExample):
            return len(row.response_ids)
        if isinstance(row, PairExample):
            return row.size
        assert self._job.objective in get_args(ImplicitObjective)
        return loss_terms(row, cast(ImplicitObjective, self._job.objective))


def start_model(job: TrainingJob) -> PreTrainedModel:
    """The model that a training starts from."""
    if job.start == "policy":
        return load_policy(job.checkpoint)
    if job.start == "reward":
        return load_reward_model(job.checkpoint, label=job.score_label)
    return reward_model_from_policy(job.checkpoint, job.seed)
