"""The train loop over a DeepSpeed engine: one job in, one Hugging Face checkpoint out.

Each worker computes the same plan, takes every world_size-th row of each step and divides its loss
sum by the step's global count, so that the gradient is the same for any number of workers. Knows
nothing of Ray: rank, world size and a callback for progress come from outside.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.checkpoints import (
    load_policy,
    load_reward_model,
    reward_model_from_policy,
    save_checkpoint,
)
from orchestrator.training.bradley_terry import pair_loss
from orchestrator.training.examples import Example, PairExample, plan, plan_for_steps
from orchestrator.training.files import read_examples
from orchestrator.training.language_modelling import response_loss


@dataclass(frozen=True)
class TrainingJob:
    """One training, as plain values.

    Attributes:
        objective: "language_modelling" or "bradley_terry".
        start: "policy" trains on from it; "policy_to_reward" puts a new head on it;
            "reward" trains on from a reward model.
        checkpoint: what it starts from, a folder or hub name.
        examples: Parquet file of training rows.
        output: folder for the checkpoint.
        batch_size: rows, or partial pairs, of an optimizer step.
        steps: exact number of steps, or None for ``epochs`` passes.
        closed: whether prefixes are scored with the closing suffix.
        deepspeed: DeepSpeed's config.
        precision: of autocast.
    """

    objective: Literal["language_modelling", "bradley_terry"]
    start: Literal["policy", "policy_to_reward", "reward"]
    checkpoint: str
    examples: str
    output: str
    learning_rate: float
    batch_size: int
    epochs: int
    steps: int | None
    warmup_steps: int
    closed: bool
    seed: int
    deepspeed: dict[str, Any]
    precision: Literal["float32", "bfloat16"]


@dataclass
class TrainingResult:
    """What a training did. ``loss`` is the mean per row or partial pair at each step."""

    steps: int = 0
    rows: int = 0
    partial_pairs: int = 0
    seconds: float = 0.0
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class LossIsNotFinite(ValueError):
    """A loss is NaN or infinite; the message names the step and its rows."""


Report = Callable[[int, int, float], None]  # steps done, steps in all, this worker's last loss


class Objective(nn.Module):
    """A model with its loss, so that DeepSpeed's hooks see one forward."""

    def __init__(self, job: TrainingJob, model: PreTrainedModel, chat: Chat) -> None:
        super().__init__()
        self.model, self._job = model, job
        self._pad = chat.tokenizer.pad_token_id or 0
        self._closing = chat.closing_ids if job.closed else ()

    def forward(self, rows: Sequence[Example]) -> tuple[Tensor, int]:
        """Loss sum of some rows, and how many tokens or partial pairs are right."""
        device = next(self.model.parameters()).device
        # Here, not around the engine: DeepSpeed switches an outer autocast off.
        with torch.autocast(device.type, torch.bfloat16, enabled=self._job.precision == "bfloat16"):
            if self._job.objective == "language_modelling":
                return response_loss(self.model, rows, self._pad, device)  # type: ignore[arg-type]
            return pair_loss(self.model, rows, self._closing, self._pad)  # type: ignore[arg-type]


def run_job(job: TrainingJob, rank: int, world_size: int, report: Report) -> TrainingResult:
    """Trains, and lets rank 0 write the checkpoint. Needs an initialised process group."""
    import deepspeed  # builds and reads much at import; only a training worker pays for it

    chat = load_chat(job.checkpoint)
    rows = read_examples(Path(job.examples))
    steps = _plan(job, rows)
    objective = Objective(job, _model(job), chat)
    objective.train()
    engine, *_ = deepspeed.initialize(
        model=objective,
        model_parameters=[p for p in objective.parameters() if p.requires_grad],
        config=_deepspeed_config(job),
        lr_scheduler=lambda optimizer: LambdaLR(optimizer, _schedule(job, len(steps))),
    )
    started = time.monotonic()
    curve = torch.zeros(len(steps), 3, dtype=torch.float64)  # loss sum, right, count
    for number, step in enumerate(steps):
        curve[number] = _one_step(engine, [rows[i] for i in step], rank, world_size, job)
        if not torch.isfinite(curve[number, 0]):
            raise LossIsNotFinite(
                f"{job.output}: the loss of step {number + 1} of {len(steps)} is not finite;"
                f" its rows of {job.examples} (from 0): {step[:20]}"
            )
        report(number + 1, len(steps), float(curve[number, 0] / curve[number, 2].clamp(min=1)))
    dist.all_reduce(curve)
    save_model(engine, chat, Path(job.output), rank)
    mean = curve[:, :2] / curve[:, 2:].clamp(min=1)
    used = {i for step in steps for i in step}
    sizes = sum(rows[i].size for i in used)
    result = TrainingResult(
        len(steps), len(used), sizes if isinstance(rows[0], PairExample) else 0,
        time.monotonic() - started, mean[:, 0].tolist(), mean[:, 1].tolist(),
    )  # fmt: skip
    engine.destroy()
    return result


def save_model(engine: Any, chat: Chat, folder: Path, rank: int) -> None:
    """Gathers the weights, sharded or not, and lets rank 0 write them as safetensors."""
    import deepspeed

    model = engine.module.model
    with deepspeed.zero.GatheredParameters(list(model.parameters()), modifier_rank=None):
        if rank == 0:
            state = {
                name: value.detach().cpu().clone() for name, value in model.state_dict().items()
            }
            save_checkpoint(model, chat.tokenizer, folder, state)
    dist.barrier()


def _one_step(
    engine: Any, rows: Sequence[Example], rank: int, world_size: int, job: TrainingJob
) -> Tensor:
    """One optimizer step; this worker's loss sum, right answers and count."""
    total = sum(_loss_terms(row) for row in rows)
    mine = rows[rank::world_size]
    count = sum(_loss_terms(row) for row in mine)
    # A worker without rows still takes part: the others wait for its gradients.
    shown = mine or rows[:1]
    loss, right = engine(shown)
    engine.backward(loss * (world_size / total if mine else 0.0))
    engine.step()
    return torch.tensor([float(loss.detach()) if mine else 0.0, right if mine else 0, count])


def _loss_terms(row: Example) -> int:
    """What the loss is a mean over: partial pairs, or response tokens."""
    return row.size if isinstance(row, PairExample) else len(row.response_ids)


def _plan(job: TrainingJob, rows: Sequence[Example]) -> list[list[int]]:
    sizes = [row.size for row in rows]
    if job.steps is not None:
        return plan_for_steps(sizes, job.batch_size, job.steps, job.seed)
    return plan(sizes, job.batch_size, job.epochs, job.seed)


def _schedule(job: TrainingJob, steps: int) -> Callable[[int], float]:
    """Linear warm-up, then linear decay to zero (paper C.4: linear)."""
    return lambda step: min(1.0, (step + 1) / (job.warmup_steps + 1)) * (1 - step / max(steps, 1))


def _model(job: TrainingJob) -> PreTrainedModel:
    if job.start == "policy":
        return load_policy(job.checkpoint)
    if job.start == "reward":
        return load_reward_model(job.checkpoint)
    return reward_model_from_policy(job.checkpoint, job.seed)


def _deepspeed_config(job: TrainingJob) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(job.deepspeed))
    config["train_micro_batch_size_per_gpu"] = 1  # rows are counted by the plan, not by DeepSpeed
    config.setdefault("optimizer", {}).setdefault("params", {})["lr"] = job.learning_rate
    return config
