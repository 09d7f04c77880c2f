"""Rows of keys and values in every layer, which grow as they are written and are copied between."""

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
        """Copies beginnings of rows to others: (from, to, tokens)."""
        copies = [copy for copy in copies if copy[2]]
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

    def make_room(self, rows: int, tokens: int, like: Sequence[Pair] = (), memory: int = 0) -> None:
        """At least so many rows and columns; ``like`` layers of any size, where there are none.

        Rows are doubled while that takes no more than ``memory`` bytes.
        """
        if not self.layers and not like:
            return
        columns = -(-tokens // STEP) * STEP
        if self.layers:
            had_rows, _, had_columns, _ = self.layers[0][0].shape
            if had_rows >= rows and had_columns >= columns:
                return
            columns = max(columns, had_columns)
            most = memory // (self.bytes_of_one * columns // had_columns)
            rows = had_rows if had_rows >= rows else max(rows, min(2 * had_rows, most))
        for i, pair in enumerate(self.layers or like):  # one by one: old and new are both there
            old: Sequence[Tensor | None] = self.layers[i] if i < len(self.layers) else (None, None)
            keys, values = (_enlarged(*both, rows, columns) for both in zip(pair, old, strict=True))
            self.layers[i : i + 1] = [(keys, values)]
        self.bytes = sum(part.nbytes for pair in self.layers for part in pair)
        self.bytes_of_one = self.bytes // rows


class Columns:
    """Tokens to copy from some rows and columns to others, one by one."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, int, int, int]] = []

    def add(self, row: int, column: int, source: int, start: int, count: int) -> None:
        """``count`` tokens of row ``source`` from ``start`` on, to ``row`` from ``column`` on."""
        if count > 0:
            self._spans.append((row, column, source, start, count))

    def copy(self, source: Sequence[Pair], target: Sequence[Pair]) -> None:
        """Copies them in all layers."""
        if not self._spans:
            return
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


def _enlarged(part: Tensor, old: Tensor | None, rows: int, columns: int) -> Tensor:
    found = part.new_zeros((rows, part.shape[1], columns, part.shape[3]))
    if old is not None:
        found[: old.shape[0], :, : old.shape[2]] = old
    return found
