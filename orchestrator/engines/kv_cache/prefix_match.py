"""Texts whose beginnings were read before, and the rows of keys and values where these stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from orchestrator.engines.kv_cache.attention import Groups
from orchestrator.engines.kv_cache.partition import Row
from orchestrator.rewards.packed import PADDING, TRUNK, Tokens


@dataclass(frozen=True)
class Known:
    """N texts, of each of which the first ``lengths[i]`` tokens were read.

    The first ``shared[i]`` of them stand in row ``roots[i]``, which several texts may share, the
    others from the first column of row ``rows[i]`` on, which is the text's own. A text that stands
    in a root wholly has that for its row.
    """

    rows: list[Row]
    roots: list[Row]
    shared: list[int]
    lengths: list[int]

    @cached_property
    def places(self) -> list[list[int]]:
        """The places of each part: the different roots, and if any text stands behind its, all."""
        roots = [row.place for row in dict.fromkeys(self.roots)]
        if not any(n > m for n, m in zip(self.lengths, self.shared, strict=True)):
            return [roots]
        # Place 0 is zeros: of a text with nothing behind its root nothing is seen there.
        return [roots, [0 if row.root is None else row.place for row in self.rows]]

    @cached_property
    def widths(self) -> list[int]:
        """How many columns of each part are needed."""
        behind = max(n - m for n, m in zip(self.lengths, self.shared, strict=True))
        return [max(self.shared), *([behind] if behind else [])]

    def some(self, texts: Sequence[int]) -> "Known":
        """Of some of the texts."""
        rows, roots = ([own[i] for i in texts] for own in (self.rows, self.roots))
        shared, lengths = ([own[i] for i in texts] for own in (self.shared, self.lengths))
        return Known(rows, roots, shared, lengths)

    def cut(self, lengths: list[int]) -> "Known":
        """No more of each text than the first ``lengths[i]`` tokens."""
        shared = [min(n, m) for n, m in zip(lengths, self.shared, strict=True)]
        return Known(self.rows, self.roots, shared, lengths)

    def tokens(self) -> Tokens:
        """What stands in the columns of all parts: (N, T), without ids; padding is marked."""
        shared, lengths = torch.tensor(self.shared)[:, None], torch.tensor(self.lengths)[:, None]
        starts, ends = [torch.zeros_like(shared), shared], [shared, lengths]
        position, there = [], []
        for start, end, width in zip(starts, ends, self.widths, strict=False):
            place = start + torch.arange(width)
            position.append(place)
            there.append(place < end)
        places = torch.cat(position, 1)
        branch = torch.where(torch.cat(there, 1), TRUNK, PADDING)
        return Tokens(torch.zeros_like(places), places, places + 1, branch)

    def groups(self, index: Tensor | None, device: torch.device | str) -> list[Groups | None]:
        """Which row of each part a row of queries sees; ``index`` (M,): its text, None: row i's i.

        Where each sees its own there is nothing to group.
        """
        roots = list(dict.fromkeys(self.roots))
        number = {row: i for i, row in enumerate(roots)}
        root = torch.tensor([number[row] for row in self.roots], device=device)
        parts = len(self.places)
        if index is None:
            alone = len(roots) == len(self.rows)
            return [None if alone else Groups(root, len(roots)), *[None] * (parts - 1)]
        both = [Groups(root[index], len(roots)), Groups(index, len(self.rows))]
        return list(both[:parts])
