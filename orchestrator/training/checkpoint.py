"""What is kept of a training under way, and of a finished one.

Under way: DeepSpeed's own sharded state, every worker its part, and how far the training is. In the
end: the whole model as safetensors.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from orchestrator.checkpoints.checkpoint import save_checkpoint
from orchestrator.conversations.chat import Chat

_TAG, _PROGRESS = "state", "progress.json"


@dataclass
class Progress:
    """How far a training is: its key, the workers that shard its state, what it has measured.

    ``curve`` (steps done, 3): loss sum, right answers and count of each step, over all workers.
    """

    key: str
    workers: int
    step: int = 0
    curve: list[list[float]] = field(default_factory=list)
    evaluation: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def measures(self) -> dict[int, dict[str, float]]:
        """The evaluations by step."""
        found: dict[int, dict[str, float]] = {}
        for name, curve in self.evaluation.items():
            for step, value in curve:
                found.setdefault(step, {})[name] = value
        return found


def write_state(engine: Any, progress: Progress, rank: int, folder: Path) -> None:
    """This worker's part of a checkpoint. All workers call it at the same step."""
    engine.save_checkpoint(str(folder), tag=_TAG)
    if rank == 0:
        (folder / _PROGRESS).write_text(json.dumps(asdict(progress)))


def read_progress(folder: Path | None, key: str, workers: int) -> Progress | None:
    """How far the checkpoint of this training is; None where it is none of this training.

    A state that was sharded over another number of workers does not fit: the training then starts
    anew.
    """
    if folder is None or not (folder / _PROGRESS).is_file():
        return None
    found = Progress(**json.loads((folder / _PROGRESS).read_text()))
    for name, curve in found.evaluation.items():  # JSON has no tuples
        found.evaluation[name] = [(step, value) for step, value in curve]
    return found if (found.key, found.workers) == (key, workers) else None


def read_state(engine: Any, folder: Path) -> None:
    """Model, optimizer and schedule as they were. All workers call it."""
    loaded, _ = engine.load_checkpoint(str(folder), tag=_TAG)
    if loaded is None:
        raise RuntimeError(f"{folder}: DeepSpeed could not load the checkpoint")


def save_model(engine: Any, chat: Chat, folder: Path, rank: int) -> None:
    """Lets rank 0 write the weights as safetensors, gathered one by one where they are sharded."""
    import deepspeed

    model = engine.module.model
    state: dict[str, Tensor] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if rank == 0:
                state[names[id(parameter)]] = parameter.detach().to("cpu", copy=True)
    if rank == 0:
        whole = model.state_dict(keep_vars=True)  # with buffers, and tied weights by all names
        state = {
            name: state[names[id(value)]] if id(value) in names else value.detach().cpu()
            for name, value in whole.items()
        }
        save_checkpoint(model, chat.tokenizer, folder, state)
    dist.barrier()


def summed(values: Tensor, device: torch.device) -> Tensor:
    """Values of all workers, summed, as float64 on the CPU."""
    found = values.to(device, torch.float64)
    dist.all_reduce(found)
    return found.cpu()
