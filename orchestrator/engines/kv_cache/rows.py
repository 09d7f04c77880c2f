"""Rows of keys and values in every layer, which grow as they are written and are copied between."""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STEP = 64  # by how many tokens rows grow
Pair = tuple[Tensor, Tensor]  # a layer's keys and values, (N, H, T, D) each


class Rows:
    """R rows of C tokens; ``layers``: (R, H, C, D) each, empty before anything is written."""

    def __init__(self) -> None:
        self.layers: list[Pair] = []
        self.bytes = 0  # of all rows in all layers
        self.bytes_of_one = 0

    def taken(self, rows: Sequence[int], width: int, layer: int) -> Pair:
        """The first ``width`` tokens of some rows in one layer: (N, H, T, D) each, a copy."""
        keys, values = self.layers[layer]
        index = torch.tensor(rows, device=keys.device)
        return (
            keys[:, :, :width].index_select(0, index),
            values[:, :, :width].index_select(0, index),
        )

    def copy_beginnings(self, copies: Sequence[tuple[int, int, int]]) -> None:
        """Copies beginnings of rows to others: (from, to, tokens, one at least)."""
        if not copies:
            return
        width = max(length for _, _, length in copies)
        device = self.layers[0][0].device
        source = torch.tensor([row for row, _, _ in copies], device=device)
        target = torch.tensor([row for _, row, _ in copies], device=device)
        for pair in self.layers:
            for part in pair:
                some = part[:, :, :width]
                some.index_copy_(0, target, some.index_select(0, source))

    @torch.inference_mode()
    def empty(self) -> None:
        """Nothing stands anywhere; the memory is kept. Not what was there: it may be NaN."""
        for pair in self.layers:
            for part in pair:
                part.zero_()

    @property
    def columns(self) -> int:
        """C."""
        return int(self.layers[0][0].shape[2]) if self.layers else 0

    def has_room(self, rows: int, tokens: int) -> bool:
        """Whether there are so many rows of at least so many tokens."""
        return bool(self.layers) and len(self.layers[0][0]) >= rows and self.columns >= tokens

    def count_within(self, memory: int, tokens: int) -> int:
        """How many rows of at least so many tokens fit in ``memory`` bytes."""
        if not self.layers:
            return sys.maxsize
        return memory // (self.bytes_of_one // self.columns * _rounded(tokens))

    def make(
        self, rows: Sequence[int], tokens: int, memory: int, like: Sequence[Pair] = ()
    ) -> None:
        """Makes memory for some rows, kept in this order, of at least so many tokens each.

        If more are wanted than there were, their number is doubled while that takes no more than
        ``memory`` bytes. Nothing is left where memory runs out on the way.

        Args:
            rows: by their places; what is past those that were there begins empty.
            tokens: of a row.
            memory: bytes.
            like: layers of any size, where there are none.
        """
        had = len(self.layers[0][0]) if self.layers else 0
        ready = had if had >= len(rows) else 2 * had
        count = max(len(rows), min(ready, self.count_within(memory, tokens)))
        kept = [row for row in rows if row < had]
        layers = list(self.layers or like)
        self.layers, self.bytes = [], 0
        for i, pair in enumerate(layers):  # one by one: old and new are both there
            keys, values = (_remade(part, kept, count, _rounded(tokens)) for part in pair)
            layers[i] = keys, values
        self.layers, self.bytes = layers, sum(part.nbytes for pair in layers for part in pair)
        self.bytes_of_one = self.bytes // count


class Columns:
    """Tokens to copy from some rows and columns to others, one by one."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, int, int, int]] = []
        self.longest = 0  # column behind the last token

    def add(self, row: int, column: int, source: int, start: int, count: int) -> None:
        """``count`` tokens of row ``source`` from ``start`` on, to ``row`` from ``column`` on."""
        if count > 0:
            self._spans.append((row, column, source, start, count))
            self.longest = max(self.longest, column + count)

    def copy(self, source: Sequence[Pair], target: Sequence[Pair]) -> None:
        """Copies them in all layers; there is one at least."""
        spans = np.array(self._spans)
        counts = spans[:, 4]
        ends = counts.cumsum()
        place = np.arange(ends[-1]) - np.repeat(ends - counts, counts)  # within its span
        each = np.repeat(spans, counts, axis=0)
        each[:, 1] += place
        each[:, 3] += place
        whole = torch.from_numpy(each.T[:4].copy()).to(source[0][0].device)
        row, column, origin, start = whole.unbind()
        for old, new in zip(source, target, strict=True):
            for here, there in zip(old, new, strict=True):
                there[row, :, column] = here[origin, :, start]


def _rounded(tokens: int) -> int:
    return -(-tokens // STEP) * STEP


def _remade(part: Tensor, kept: Sequence[int], rows: int, columns: int) -> Tensor:
    found = part.new_zeros((rows, part.shape[1], columns, part.shape[3]))
    if kept:
        width = min(columns, part.shape[2])
        found[: len(kept), :, :width] = part[torch.tensor(kept, device=part.device), :, :width]
    return found
