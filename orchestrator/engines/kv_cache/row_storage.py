"""Storage of cache rows: keys and values of every layer, reallocated as rows grow."""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ROW_GRANULARITY = 64  # tokens; the length of rows is a multiple of it
LayerKV = tuple[Tensor, Tensor]  # keys and values of one layer, (N, H, T, D) each


class RowStorage:
    """R cache rows of C tokens each; ``layers`` holds (R, H, C, D) pairs, empty until allocated."""

    def __init__(self) -> None:
        self.layers: list[LayerKV] = []
        self.nbytes = 0  # size of all rows in all layers
        self.row_nbytes = 0

    def gather(self, rows: Sequence[int], width: int, layer: int) -> LayerKV:
        """Return the first ``width`` tokens of some rows of a layer, copies (N, H, T, D)."""
        keys, values = self.layers[layer]
        index = torch.tensor(rows, device=keys.device)
        return (
            keys[:, :, :width].index_select(0, index),
            values[:, :, :width].index_select(0, index),
        )

    def copy_prefixes(self, copies: Sequence[tuple[int, int, int]]) -> None:
        """Copy row prefixes between rows: (source row, target row, tokens), at least one token."""
        if not copies:
            return
        width = max(length for _, _, length in copies)
        device = self.layers[0][0].device
        source = torch.tensor([row for row, _, _ in copies], device=device)
        target = torch.tensor([row for _, row, _ in copies], device=device)
        for pair in self.layers:
            for states in pair:
                prefix = states[:, :, :width]
                prefix.index_copy_(0, target, prefix.index_select(0, source))

    @torch.inference_mode()
    def zero(self) -> None:
        """Fill all rows with zeros and keep the memory. Old contents may be NaN."""
        for pair in self.layers:
            for states in pair:
                states.zero_()

    @property
    def row_length(self) -> int:
        """C."""
        return int(self.layers[0][0].shape[2]) if self.layers else 0

    def fits(self, rows: int, tokens: int) -> bool:
        """Return whether at least ``rows`` rows of at least ``tokens`` tokens are allocated."""
        return bool(self.layers) and len(self.layers[0][0]) >= rows and self.row_length >= tokens

    def max_rows(self, memory: int, tokens: int) -> int:
        """Return how many rows of at least ``tokens`` tokens fit in ``memory`` bytes."""
        if not self.layers:
            return sys.maxsize
        return memory // (self.row_nbytes // self.row_length * _rounded(tokens))

    def reallocate(
        self, rows: Sequence[int], tokens: int, memory: int, template: Sequence[LayerKV] = ()
    ) -> None:
        """Allocate rows of at least ``tokens`` tokens and move the contents of ``rows`` to them.

        If more rows are needed than exist, their number doubles as far as ``memory`` allows.
        If memory runs out on the way, the storage is empty.

        Args:
            rows: old indices of the rows, in their new order; indices past the last row become
                zeroed rows.
            tokens: least length of a row.
            memory: bytes.
            template: layers of any size, which give heads, dtype and device where none exist.
        """
        old_count = len(self.layers[0][0]) if self.layers else 0
        preferred = old_count if old_count >= len(rows) else 2 * old_count
        count = max(len(rows), min(preferred, self.max_rows(memory, tokens)))
        existing = [row for row in rows if row < old_count]
        layers = list(self.layers or template)
        self.layers, self.nbytes = [], 0
        for i, pair in enumerate(layers):  # layer by layer: old and new layers coexist
            keys, values = (
                _reallocated(states, existing, count, _rounded(tokens)) for states in pair
            )
            layers[i] = keys, values
        self.layers = layers
        self.nbytes = sum(states.nbytes for pair in layers for states in pair)
        self.row_nbytes = self.nbytes // count


class CopyPlan:
    """Spans of tokens to copy from rows of one storage to rows of another."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, int, int, int]] = []
        self.end = 0  # largest target column + 1

    def add(self, row: int, column: int, source: int, start: int, count: int) -> None:
        """Add ``count`` tokens of ``source`` from ``start`` on, for ``row`` from ``column`` on."""
        if count > 0:
            self._spans.append((row, column, source, start, count))
            self.end = max(self.end, column + count)

    def copy(self, source: Sequence[LayerKV], target: Sequence[LayerKV]) -> None:
        """Copy all spans in all layers. The plan must not be empty."""
        spans = np.array(self._spans)
        counts = spans[:, 4]
        ends = counts.cumsum()
        offset = np.arange(ends[-1]) - np.repeat(ends - counts, counts)  # within its span
        tokens = np.repeat(spans, counts, axis=0)
        tokens[:, 1] += offset
        tokens[:, 3] += offset
        indices = torch.from_numpy(tokens.T[:4].copy()).to(source[0][0].device)
        row, column, source_row, source_column = indices.unbind()
        for source_pair, target_pair in zip(source, target, strict=True):
            for source_states, target_states in zip(source_pair, target_pair, strict=True):
                target_states[row, :, column] = source_states[source_row, :, source_column]


def _rounded(tokens: int) -> int:
    return -(-tokens // ROW_GRANULARITY) * ROW_GRANULARITY


def _reallocated(states: Tensor, existing: Sequence[int], rows: int, columns: int) -> Tensor:
    resized = states.new_zeros((rows, states.shape[1], columns, states.shape[3]))
    if existing:
        width = min(columns, states.shape[2])
        index = torch.tensor(existing, device=states.device)
        resized[: len(existing), :, :width] = states[index, :, :width]
    return resized
