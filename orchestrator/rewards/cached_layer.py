"""Keys and values over those of an earlier forward, of which each row takes what it may see."""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class OverLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values over those of an earlier forward: some rows and columns of them.

    Unless ``keep`` is set nothing is kept, so that only one layer's copy is there at a time.
    """

    def __init__(
        self, below: DynamicLayer, rows: Tensor | None, columns: Tensor | None, keep: bool
    ) -> None:
        super().__init__()
        self._below, self._rows, self._columns, self._keep = below, rows, columns, keep

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """All that the queries may see, (N, H, C + Tq, D) each."""
        keys = torch.cat([self._taken(self._below.keys), key_states], 2)
        values = torch.cat([self._taken(self._below.values), value_states], 2)
        if self._keep:
            self.keys, self.values = keys, values
        return keys, values

    def get_seq_length(self) -> int:
        """C, the tokens of the earlier forward."""
        taken = self._below.keys if self._columns is None else self._columns
        return int(taken.shape[-2 if self._columns is None else 1])

    def _taken(self, below: Tensor) -> Tensor:
        if self._rows is not None:
            below = below[self._rows]
        if self._columns is None:
            return below
        index = self._columns[:, None, :, None].expand(-1, below.shape[1], -1, below.shape[3])
        return below.gather(2, index)
