"""Evaluation on held-out rows during a training: loss, accuracy, and AR(t) of partial pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from orchestrator.objectives.examples import Example, PairExample
from orchestrator.objectives.partial_pairs import PartialPairObjective
from orchestrator.training.checkpoint import all_reduce_sum
from orchestrator.training.files import read_examples
from orchestrator.training.model_with_loss import ModelWithLoss
from orchestrator.training.plan import shares

BATCH_TOKENS = 8_192  # padded tokens of a forward if the training sets no limit


class HeldOut:
    """The held-out rows of a training, divided among the workers.

    Args:
        file: rows of the kind that the objective is trained on. Preference pairs are cut at each t
            of AR(t), and last at the full length.
        rank: number of this worker.
        workers: number of workers.
        most_tokens: padded tokens of a forward at most; None is BATCH_TOKENS.
    """

    def __init__(self, file: Path, rank: int, workers: int, most_tokens: int | None) -> None:
        self._rows = read_examples(file)
        tokens = [row.tokens for row in self._rows]
        indices = range(len(self._rows))
        self._batches = shares(indices, tokens, workers, most_tokens or BATCH_TOKENS)[rank]

    @torch.no_grad()
    def measure(self, model: ModelWithLoss) -> dict[str, float]:
        """Return the metrics by name, the same on every worker. All workers call it together."""
        was_training = model.training
        model.eval()
        grid = self._grid()
        # Loss sum, number of right terms, number of terms; then the pairs ordered right at each t.
        sums = torch.zeros(3 + len(grid), dtype=torch.float64)
        for batch in self._batches:
            rows = [self._rows[i] for i in batch.rows]
            values = _pair_sums(model, rows) if grid else _sums(model, rows)
            if batch.counts:
                sums += values
        model.train(was_training)
        sums = all_reduce_sum(sums, model.device)
        metrics = {
            "held_out_loss": float(sums[0] / sums[2]),
            "held_out_accuracy": float(sums[1] / sums[2]),
        }
        ordered = zip(grid, (sums[3:] / sums[2]).tolist(), strict=True)
        return metrics | {f"held_out_AR_t{t}": rate for t, rate in ordered}

    def _grid(self) -> list[int]:
        """Return the lengths t of AR(t): all cuts but the last, which is the full length."""
        first = self._rows[0]
        return list(first.chosen_cuts[:-1]) if isinstance(first, PairExample) else []


def _pair_sums(model: ModelWithLoss, rows: Sequence[Example]) -> torch.Tensor:
    """Return the sums of full responses, then the number of pairs ordered right at each t."""
    pairs = [row for row in rows if isinstance(row, PairExample)]
    objective = cast(type[PartialPairObjective], model.objective)
    with model.autocast():
        scores = objective.scores(model.context, pairs)
    chosen, rejected = (side.reshape(len(pairs), -1).double().cpu() for side in scores)
    ordered = (chosen > rejected).sum(0).double()  # (G + 1,)
    ones = torch.ones(len(pairs), dtype=torch.float64)
    loss = objective.pair_loss(chosen[:, -1], rejected[:, -1], ones)
    counts = torch.stack([loss, ordered[-1], torch.tensor(float(len(pairs)))])
    return torch.cat([counts, ordered[:-1]])


def _sums(model: ModelWithLoss, rows: Sequence[Example]) -> torch.Tensor:
    """Return loss sum, number of right terms and number of terms."""
    loss, right = model(rows)
    return torch.tensor(
        [float(loss), float(right), float(model.num_loss_terms(rows))], dtype=torch.float64
    )
