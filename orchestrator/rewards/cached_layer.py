"""Cache layers that continue the keys and values of an earlier forward."""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class CachedLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer that concatenates new keys and values to those of an earlier forward pass.

    Args:
        trunk: the layer of the earlier forward pass.
        rows: (N,) for each new row, the row of ``trunk`` that it continues; None: the same rows.
        columns: (N, C) columns of ``trunk`` that each row attends to; None: all.
        keep: whether to store the concatenated states; if not, only one layer's copy exists at a
            time.
    """

    def __init__(
        self, trunk: DynamicLayer, rows: Tensor | None, columns: Tensor | None, keep: bool
    ) -> None:
        super().__init__()
        self._trunk, self._rows, self._columns, self._keep = trunk, rows, columns, keep

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Return the selected trunk states and the new ones, (N, H, C + Tq, D) each."""
        keys = torch.cat([self._selected(self._trunk.keys), key_states], 2)
        values = torch.cat([self._selected(self._trunk.values), value_states], 2)
        if self._keep:
            self.keys, self.values = keys, values
        return keys, values

    def get_seq_length(self) -> int:
        """Return C, the number of selected tokens of the earlier forward pass."""
        if self._columns is None:
            return int(self._trunk.keys.shape[-2])
        return int(self._columns.shape[1])

    def _selected(self, states: Tensor) -> Tensor:
        if self._rows is not None:
            states = states[self._rows]
        if self._columns is None:
            return states
        index = self._columns[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
        return states.gather(2, index)
