"""The family of objectives on partial pairs: a reward model scores prefixes of two responses.

The prompt of a pair is computed once, and all its prefixes come from one packed forward.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from orchestrator.objectives.examples import PairExample
from orchestrator.objectives.objective import DataKind, LossContext, Objective, Start

if TYPE_CHECKING:
    from torch import Tensor


class PartialPairObjective(Objective[PairExample]):
    """An objective on the scores of partial pairs; a subclass defines ``pair_loss``."""

    data_kind: ClassVar[DataKind | None] = "partial_pairs"
    starts_from: ClassVar[Start] = "orm"
    fields: ClassVar[tuple[str, ...]] = ("truncation", "weight", "match")

    @classmethod
    def pair_loss(cls, chosen: "Tensor", rejected: "Tensor", weights: "Tensor") -> "Tensor":
        """Return the sum of the loss over N partial pairs.

        Args:
            chosen: scores of the chosen prefixes (N,).
            rejected: scores of the rejected prefixes (N,).
            weights: weights w of the partial pairs (N,).
        """
        raise NotImplementedError

    @classmethod
    def loss(cls, context: LossContext, rows: Sequence[PairExample]) -> "tuple[Tensor, int]":
        """Return the loss sum of some pairs, and how many partial pairs are ordered right."""
        import torch

        chosen, rejected = cls.scores(context, rows)
        weights = torch.tensor([w for row in rows for w in row.weights])
        loss = cls.pair_loss(chosen, rejected, weights.to(chosen))
        return loss, int((chosen > rejected).sum())

    @classmethod
    def scores(cls, context: LossContext, rows: Sequence[PairExample]) -> "tuple[Tensor, Tensor]":
        """Return the scores of the chosen and of the rejected prefixes of all rows (N,) each."""
        import torch

        from orchestrator.rewards.one_pass import packed_scores
        from orchestrator.rewards.packed import prefix_row

        packed = [
            prefix_row(
                row.prompt_ids,
                (row.chosen_ids, row.rejected_ids),
                (row.chosen_cuts, row.rejected_cuts),
                context.closing_ids,
            )
            for row in rows
        ]
        scores = packed_scores(
            context.model, packed, context.pad_id, context.branch_memory_mib
        )  # (B, 2 K)
        chosen = torch.cat([scores[i, : row.size] for i, row in enumerate(rows)])
        rejected = torch.cat([scores[i, row.size : 2 * row.size] for i, row in enumerate(rows)])
        return chosen, rejected
