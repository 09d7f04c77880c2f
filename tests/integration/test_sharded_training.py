"""Losses under ZeRO-3: two workers whose rows need different numbers of chunks."""

import os
import socket
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from orchestrator.checkpoints.checkpoint import load_policy, reward_model_from_policy
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.objectives.definitions.dpo import DPO
from orchestrator.objectives.examples import ImplicitExample, PairExample
from orchestrator.objectives.objective import LossContext
from orchestrator.rewards import log_ratio

SECONDS = 1_000
TOLERANCE = 1e-5  # float32
STEPS, RATE, BETA = 3, 1e-4, 0.5
LONG = tuple(range(5, 25))
ROWS = [  # worker 0 takes the first, worker 1 the second
    ImplicitExample((9,), ((12, 4), (13, 4)), (True, False), (-9.0, -8.0)),
    ImplicitExample((5, 6, 7), ((*LONG, 4), (8, 9, 4)), (True, False), (-90.0, -14.0)),
]


# Few branches for the first: one forward. Those of the second are 80, cut into chunks.
CUTS = (tuple(range(1, 21)) * 4, (1, 2, 3) * 26 + (1, 2))
PAIRS = [
    PairExample((9,), (12, 13), (13,), (1, 2), (1, 1), (1.0, 0.5)),
    PairExample((5, 6, 7), LONG, (8, 9, 11), *CUTS, (1.0,) * 80),
]


class Implicit(nn.Module):
    """A model with its loss, as the train loop has it."""

    rows: Sequence[Any] = ROWS

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.model = load_policy(checkpoint)
        # Two positions a chunk: 2 chunks for the first row, 12 for the second.
        log_ratio.LOGITS_PER_CHUNK = 2 * self.model.config.vocab_size

    def forward(self, rows: list[ImplicitExample]) -> Tensor:
        return DPO.loss(LossContext(self.model, beta=BETA), rows)[0]


class Pairs(nn.Module):
    """The same of pairs with their partial pairs."""

    rows: Sequence[Any] = PAIRS

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.model = reward_model_from_policy(checkpoint, 0)
        nn.init.normal_(self.model.score.weight, generator=torch.Generator().manual_seed(1))

    def forward(self, rows: list[PairExample]) -> Tensor:
        return BradleyTerry.loss(LossContext(self.model, closing_ids=(4,)), rows)[0]


def worker(rank: int, kind: type[Implicit | Pairs], checkpoint: str, port: int, queue: Any) -> None:
    """Trains with sharded weights; rank 0 sends the weights."""
    environment = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    import deepspeed

    dist.init_process_group("gloo", rank=rank, world_size=2)
    config = {
        "train_micro_batch_size_per_gpu": 1, "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,
        "optimizer": {"type": "SGD", "params": {"lr": RATE}},
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    }  # fmt: skip
    engine, *_ = deepspeed.initialize(model=kind(checkpoint), config=config)
    for _ in range(STEPS):
        engine.backward(
            engine([kind.rows[rank]])
        )  # averaged over the two workers: the mean of rows
        engine.step()
    parameters = list(engine.module.parameters())
    with deepspeed.zero.GatheredParameters(parameters, modifier_rank=None):
        if rank == 0:
            queue.put([p.detach().cpu().numpy().copy() for p in parameters])
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", [Pairs, pytest.param(Implicit, marks=pytest.mark.slow)])
def test_two_workers_train_as_one_does_without_sharding(
    kind: type[Implicit | Pairs], word_policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_ratio, "LOGITS_PER_CHUNK", log_ratio.LOGITS_PER_CHUNK)
    plain = kind(word_policy)
    before = [p.detach().clone() for p in plain.parameters()]
    optimizer = torch.optim.SGD(plain.parameters(), lr=RATE)  # steps in proportion to gradients
    for _ in range(STEPS):
        optimizer.zero_grad()
        (plain(kind.rows) / len(kind.rows)).backward()
        optimizer.step()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=worker, args=(rank, kind, word_policy, port, queue))
        for rank in (0, 1)
    ]
    for process in workers:
        process.start()
    try:
        found = queue.get(timeout=SECONDS)
        for process in workers:
            process.join(SECONDS)
        assert [process.exitcode for process in workers] == [0, 0]
    finally:
        for process in workers:
            process.kill()
    moved = 0.0
    for mine, first, parameter in zip(found, before, plain.parameters(), strict=True):
        assert torch.allclose(torch.from_numpy(mine), parameter.detach(), rtol=0, atol=TOLERANCE)
        moved = max(moved, float((parameter.detach() - first).abs().max()))
    assert moved > 100 * TOLERANCE
