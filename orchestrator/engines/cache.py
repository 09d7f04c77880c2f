"""A key/value cache that grows in place: decoding writes a token, it does not copy the prefix.

transformers' DynamicLayer concatenates at every token, which on a CPU costs as much as the model.
"""

from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens of spare room, made when the last is used up


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, (B, H, T, D) views into storage with room for more tokens."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._storage: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes (B, H, new, D) behind what is there; gives all of it, (B, H, T + new, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        if self._storage is None or end > self._storage[0].shape[-2]:
            old = (self.keys, self.values) if start else (None, None)
            self._storage = tuple(
                _with_room(new, kept, start, end)
                for new, kept in zip((key_states, value_states), old, strict=True)
            )  # type: ignore[assignment]
        keys, values = self._storage  # type: ignore[misc]
        keys[..., start:end, :], values[..., start:end, :] = key_states, value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps, repeats or reorders rows: ``indices`` (B',) int64."""
        super().batch_select_indices(indices)
        self._storage = None  # the rows kept are a copy without room


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model; layers with a sliding window stay transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def _with_room(new: Tensor, kept: Tensor | None, start: int, end: int) -> Tensor:
    storage = new.new_empty((*new.shape[:-2], end + ROOM, new.shape[-1]))
    if kept is not None:
        storage[..., :start, :] = kept
    return storage
