"""Scores packed rows in batches with a causal reward model."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from orchestrator.choices import BRANCH_MEMORY_MIB
from orchestrator.rewards.batching import batches_by_length
from orchestrator.rewards.one_pass import Head, packed_scores
from orchestrator.rewards.packed import Branch, PackedRow
from orchestrator.scorers.scorer import check_finite
from orchestrator.search.engines import Ids


class PackedPass:
    """A causal reward model that scores packed rows.

    Args:
        model: on its device, in evaluation mode.
        pad_id: any token id; no score depends on padding.
        head: maps hidden states (N, k, D) to scores (N, k); replaces the model's score head.
        branch_memory_mib: memory limit for branches beside their trunks (MiB).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pad_id: int,
        head: Head | None = None,
        branch_memory_mib: int = BRANCH_MEMORY_MIB,
    ) -> None:
        self.model, self._pad_id, self._head = model, pad_id, head
        self._branch_memory_mib = branch_memory_mib

    @torch.no_grad()
    def score_rows(self, rows: Sequence[PackedRow]) -> list[list[float]]:
        """Return the scores of packed rows; result i has those of row i's branches.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
        """
        results: list[list[float]] = [[] for _ in rows]
        for batch in batches_by_length([row.tokens for row in rows]):
            batch_rows = [rows[i] for i in batch]
            scores = packed_scores(
                self.model, batch_rows, self._pad_id, self._branch_memory_mib, self._head
            )
            for i, values in zip(batch, scores.tolist(), strict=True):
                results[i] = values[: len(rows[i].branches)]
        check_finite(results)
        return results

    def score_branches(
        self, trunks: Sequence[tuple[Ids, Ids]], branches: Sequence[Sequence[Branch]]
    ) -> tuple[list[list[float]], list[int]]:
        """Return, for each trunk, the scores of its branches and the number of tokens computed.

        The branches of a trunk are distributed over several rows if together they have more tokens
        than the trunk; each row computes the trunk again.

        Args:
            trunks: (prompt, response) of each trunk.
            branches: the branches of each trunk.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
        """
        rows, owners = [], []
        for owner, ((prompt, response), tails) in enumerate(zip(trunks, branches, strict=True)):
            for group in _groups(len(prompt) + len(response), tails):
                rows.append(PackedRow(prompt, (response,), group))
                owners.append(owner)
        scores: list[list[float]] = [[] for _ in trunks]
        tokens = [0] * len(trunks)
        for owner, row, values in zip(owners, rows, self.score_rows(rows), strict=True):
            scores[owner] += values
            tokens[owner] += row.tokens
        return scores, tokens


def _groups(room: int, branches: Sequence[Branch]) -> list[tuple[Branch, ...]]:
    """Split branches into groups of at most ``room`` tokens, or of one branch.

    Branches do not attend to each other, but a dense mask costs all pairs of positions. If the
    branches are longer than the trunk, computing the trunk again is cheaper.
    """
    groups: list[tuple[Branch, ...]] = []
    used = 0
    for branch in branches:
        size = len(branch.token_ids)
        if groups and used + size <= room:
            groups[-1] += (branch,)
            used += size
        else:
            groups.append((branch,))
            used = size
    return groups
