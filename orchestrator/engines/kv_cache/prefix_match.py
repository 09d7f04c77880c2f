"""Prefix matches: how much of each sequence is cached, and in which cache rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from orchestrator.engines.kv_cache.attention import RowGroups
from orchestrator.engines.kv_cache.partition import CacheRow
from orchestrator.rewards.packed import PADDING, TRUNK, Tokens


@dataclass(frozen=True)
class PrefixMatches:
    """The cached prefixes of N sequences: the first ``cached_lengths[i]`` tokens of sequence i.

    The first ``parent_lengths[i]`` of these are stored in row ``parents[i]``, which sequences may
    share, the others in ``rows[i]`` from its first column on. Where ``parents[i]`` is ``rows[i]``,
    that row stores all of them.
    """

    rows: list[CacheRow]
    parents: list[CacheRow]
    parent_lengths: list[int]
    cached_lengths: list[int]

    @cached_property
    def segments(self) -> list[list[int]]:
        """Row indices of each segment: the distinct parents; then the rows of the sequences.

        The second segment exists if any sequence has cached tokens beyond those in its parent.
        """
        parents = [row.index for row in dict.fromkeys(self.parents)]
        lengths = zip(self.cached_lengths, self.parent_lengths, strict=True)
        if not any(cached > in_parent for cached, in_parent in lengths):
            return [parents]
        # Row 0 is zeros: a sequence without a child row sees nothing of this segment.
        return [parents, [0 if row.parent is None else row.index for row in self.rows]]

    @cached_property
    def widths(self) -> list[int]:
        """Columns of each segment."""
        lengths = zip(self.cached_lengths, self.parent_lengths, strict=True)
        in_child = max(cached - in_parent for cached, in_parent in lengths)
        return [max(self.parent_lengths), *([in_child] if in_child else [])]

    def select(self, indices: Sequence[int]) -> "PrefixMatches":
        """Return the matches of some of the sequences."""
        return PrefixMatches(
            [self.rows[i] for i in indices],
            [self.parents[i] for i in indices],
            [self.parent_lengths[i] for i in indices],
            [self.cached_lengths[i] for i in indices],
        )

    def truncated(self, lengths: list[int]) -> "PrefixMatches":
        """Return the matches limited to the first ``lengths[i]`` tokens of sequence i."""
        in_parents = [min(n, m) for n, m in zip(lengths, self.parent_lengths, strict=True)]
        cached = [min(n, m) for n, m in zip(lengths, self.cached_lengths, strict=True)]
        return PrefixMatches(self.rows, self.parents, in_parents, cached)

    def tokens(self) -> Tokens:
        """Return the columns of all segments as tokens (N, T) without ids, padding marked."""
        in_parents = torch.tensor(self.parent_lengths)[:, None]
        cached = torch.tensor(self.cached_lengths)[:, None]
        starts, ends = [torch.zeros_like(in_parents), in_parents], [in_parents, cached]
        position, valid = [], []
        for start, end, width in zip(starts, ends, self.widths, strict=False):
            columns = start + torch.arange(width)
            position.append(columns)
            valid.append(columns < end)
        positions = torch.cat(position, 1)
        branch = torch.where(torch.cat(valid, 1), TRUNK, PADDING)
        return Tokens(torch.zeros_like(positions), positions, positions + 1, branch)

    def groups(self, index: Tensor | None, device: torch.device | str) -> list[RowGroups | None]:
        """Return, for each segment, which of its rows each row of queries attends to.

        None for a segment in which query row i attends to row i.

        Args:
            index: (M,) the sequence of each query row; None: query row i is of sequence i.
            device: device of the groups.
        """
        parents = list(dict.fromkeys(self.parents))
        number = {row: i for i, row in enumerate(parents)}
        parent_index = torch.tensor([number[row] for row in self.parents], device=device)
        count = len(self.segments)
        if index is None:
            unshared = len(parents) == len(self.rows)
            first = None if unshared else RowGroups(parent_index, len(parents))
            return [first, *[None] * (count - 1)]
        both = [RowGroups(parent_index[index], len(parents)), RowGroups(index, len(self.rows))]
        return list(both[:count])
