"""Packed rows in batches through one model: what all causal reward models are asked by."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from orchestrator.rewards.batching import batches_by_length
from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB, Head, packed_scores
from orchestrator.rewards.packed import Branch, PackedRow
from orchestrator.scorers.scorer import check_finite
from orchestrator.search.engines import Ids


class PackedPass:
    """A causal reward model that scores packed rows.

    Args:
        model: on its device, in evaluation mode; ``head`` as of ``packed_scores``.
        pad_id: any token id; padding is never read.
        branch_memory_mib: what branches may take beside their trunks.
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
    def rows(self, rows: Sequence[PackedRow]) -> list[list[float]]:
        """Scores of packed rows, batched by length; result i holds row i's branches.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
        """
        results: list[list[float]] = [[] for _ in rows]
        for batch in batches_by_length([row.tokens for row in rows]):
            some = [rows[i] for i in batch]
            scores = packed_scores(
                self.model, some, self._pad_id, self._branch_memory_mib, self._head
            )
            for i, values in zip(batch, scores.tolist(), strict=True):
                results[i] = values[: len(rows[i].branches)]
        check_finite(results)
        return results

    def branches(
        self, trunks: Sequence[tuple[Ids, Ids]], branches: Sequence[Sequence[Branch]]
    ) -> tuple[list[list[float]], list[int]]:
        """Scores of the branches of each trunk (prompt, response), and the tokens computed.

        Long branches of one trunk are spread over several rows.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
        """
        rows, owners = [], []
        for owner, ((prompt, response), own) in enumerate(zip(trunks, branches, strict=True)):
            for some in _within(len(prompt) + len(response), own):
                rows.append(PackedRow(prompt, (response,), some))
                owners.append(owner)
        scores: list[list[float]] = [[] for _ in trunks]
        tokens = [0] * len(trunks)
        for owner, row, values in zip(owners, rows, self.rows(rows), strict=True):
            scores[owner] += values
            tokens[owner] += row.tokens
        return scores, tokens


def _within(room: int, branches: Sequence[Branch]) -> list[tuple[Branch, ...]]:
    """Branches in groups of at most ``room`` tokens, or of one.

    Branches do not see each other, but a dense mask pays for all pairs of positions: past the
    trunk's own length, computing the trunk again is cheaper.
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
