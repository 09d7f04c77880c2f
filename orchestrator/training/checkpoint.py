"""Checkpoints of a running training, and the model of a finished one.

A checkpoint is DeepSpeed's sharded state, one shard for each worker, and the progress of the
training. The finished model is written as safetensors.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from orchestrator.checkpoints.checkpoint import save_checkpoint
from orchestrator.conversations.chat import Chat

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_TAG, _PROGRESS = "state", "progress.json"


@dataclass
class Progress:
    """The progress of a training.

    Attributes:
        key: key of the training.
        workers: number of workers that shard its state.
        step: number of finished steps.
        curve: for each finished step its loss sum, right terms and number of terms, of all workers
            (step, 3).
        evaluation: (step, value) of each held-out metric, by its name.
    """

    key: str
    workers: int
    step: int = 0
    curve: list[list[float]] = field(default_factory=list)
    evaluation: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def metrics(self) -> dict[int, dict[str, float]]:
        """Return the held-out metrics by step."""
        metrics: dict[int, dict[str, float]] = {}
        for name, curve in self.evaluation.items():
            for step, value in curve:
                metrics.setdefault(step, {})[name] = value
        return metrics


def write_state(engine: "DeepSpeedEngine", progress: Progress, rank: int, folder: Path) -> None:
    """Write this worker's shard of a checkpoint. All workers call it at the same step."""
    engine.save_checkpoint(str(folder), tag=_TAG)
    if rank == 0:
        (folder / _PROGRESS).write_text(json.dumps(asdict(progress)))


def read_progress(folder: Path | None, key: str, workers: int) -> Progress | None:
    """Return the progress of a checkpoint; None if it belongs to another training.

    A state that is sharded over another number of workers cannot be loaded: the result is None, and
    the training starts from the beginning.
    """
    if folder is None or not (folder / _PROGRESS).is_file():
        return None
    progress = Progress(**json.loads((folder / _PROGRESS).read_text()))
    for name, curve in progress.evaluation.items():  # JSON has no tuples
        progress.evaluation[name] = [(step, value) for step, value in curve]
    return progress if (progress.key, progress.workers) == (key, workers) else None


def read_state(engine: "DeepSpeedEngine", folder: Path) -> None:
    """Load model, optimizer and schedule from a checkpoint. All workers call it.

    Raises:
        RuntimeError: DeepSpeed cannot load the checkpoint.
    """
    loaded, _ = engine.load_checkpoint(str(folder), tag=_TAG)
    if loaded is None:
        raise RuntimeError(f"{folder}: DeepSpeed could not load the checkpoint")


def save_model(engine: "DeepSpeedEngine", chat: Chat, folder: Path, rank: int) -> None:
    """Write the model as safetensors on rank 0. All workers call it.

    Weights that are sharded are gathered one at a time.
    """
    import deepspeed

    model = engine.module.model
    state: dict[str, Tensor] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if rank == 0:
                state[names[id(parameter)]] = parameter.detach().to("cpu", copy=True)
    if rank == 0:
        values = model.state_dict(keep_vars=True)  # with buffers, and tied weights by all names
        state = {
            name: state[names[id(value)]] if id(value) in names else value.detach().cpu()
            for name, value in values.items()
        }
        save_checkpoint(model, chat.tokenizer, folder, state)
    dist.barrier()


def all_reduce_sum(values: Tensor, device: torch.device) -> Tensor:
    """Return the sum of the values of all workers, as float64 on the CPU. All workers call it."""
    total = values.to(device, torch.float64)
    dist.all_reduce(total)
    return total.cpu()
