"""Held-out rows during a training: the loss, the accuracy, and AR(t) of partial pairs."""

from collections.abc import Sequence
from pathlib import Path

import torch

from orchestrator.objectives.objective import Objective
from orchestrator.rewards.one_pass import packed_scores
from orchestrator.rewards.packed import prefix_row
from orchestrator.training.checkpoint import summed
from orchestrator.training.examples import PairExample
from orchestrator.training.files import Example, read_examples
from orchestrator.training.plan import shares

BATCH_TOKENS = 8_192  # padded tokens of a forward where the training sets no bound


class HeldOut:
    """Held-out rows, shared out among the workers.

    Args:
        file: rows of the training's own kind. Rows of pairs are cut at the grid of t at which AR(t)
            is wanted, the last cut at the whole length.
        rank: number of this worker.
        workers: how many there are.
        most_tokens: of a forward, or None.
    """

    def __init__(self, file: Path, rank: int, workers: int, most_tokens: int | None) -> None:
        self._rows = read_examples(file)
        tokens = [row.tokens for row in self._rows]
        every = range(len(self._rows))
        self._batches = shares(every, tokens, workers, most_tokens or BATCH_TOKENS)[rank]

    @torch.no_grad()
    def measure(self, objective: Objective) -> dict[str, float]:
        """The measures by name, the same on every worker. All workers call it."""
        was_training = objective.training
        objective.eval()
        grid = self._grid()
        # Loss sum, right answers, count; then the pairs ordered right at each t.
        found = torch.zeros(3 + len(grid), dtype=torch.float64)
        for batch in self._batches:
            rows = [self._rows[i] for i in batch.rows]
            values = self._pairs(objective, rows) if grid else _terms(objective, rows)
            if batch.counts:
                found += values
        objective.train(was_training)
        found = summed(found, objective.device)
        measures = {
            "held_out_loss": float(found[0] / found[2]),
            "held_out_accuracy": float(found[1] / found[2]),
        }
        ordered = zip(grid, (found[3:] / found[2]).tolist(), strict=True)
        return measures | {f"held_out_AR_t{t}": rate for t, rate in ordered}

    def _grid(self) -> list[int]:
        """The lengths t of AR(t); the last cut is the whole length and no part of it."""
        first = self._rows[0]
        return list(first.chosen_cuts[:-1]) if isinstance(first, PairExample) else []

    def _pairs(self, objective: Objective, rows: Sequence[Example]) -> torch.Tensor:
        pairs = [row for row in rows if isinstance(row, PairExample)]
        packed = [
            prefix_row(
                row.prompt_ids,
                (row.chosen_ids, row.rejected_ids),
                (row.chosen_cuts, row.rejected_cuts),
                objective.closing_ids,
            )
            for row in pairs
        ]
        with objective.autocast():
            scores = packed_scores(
                objective.model, packed, objective.pad_id, objective.branch_memory_mib
            )
        size = pairs[0].size
        gaps = (scores[:, :size] - scores[:, size : 2 * size]).double()  # (B, G + 1)
        whole = gaps[:, -1].cpu()
        loss = torch.nn.functional.softplus(-whole).sum()
        ordered = (gaps[:, :-1].cpu() > 0).sum(0).double()
        counts = torch.stack([loss, (whole > 0).sum().double(), torch.tensor(float(len(pairs)))])
        return torch.cat([counts, ordered])


def _terms(objective: Objective, rows: Sequence[Example]) -> torch.Tensor:
    loss, right = objective(rows)
    count = sum(objective.terms(row) for row in rows)
    return torch.tensor([float(loss), float(right), float(count)], dtype=torch.float64)
