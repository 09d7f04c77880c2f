"""The KV cache of a batch of samples: shared prefixes once, and each sample's new tokens.

New tokens are appended in place; neither they nor the prefixes are copied.
"""

from collections.abc import Sequence

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from orchestrator.engines.kv_cache.attention import RowGroups, Segment, Segments
from orchestrator.engines.kv_cache.row_storage import LayerKV

SPARE_COLUMNS = 64  # allocated whenever the columns are used up


class SampleLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of N samples that continue cached prefixes.

    A sample may begin at a later column than another: its earlier columns are undefined, and a mask
    must hide them.

    Args:
        segmented: whether the model's attention takes segments.

    Attributes:
        prefixes: keys and values (P, H, T, D) of the samples' prefixes, one pair a segment.
    """

    prefixes: Sequence[LayerKV] = ()
    keys: Tensor
    values: Tensor

    def __init__(self, segmented: bool) -> None:
        super().__init__()
        self._segmented = segmented
        self._visible: list[LayerKV] = []
        self._groups: list[RowGroups | None] = []
        self._rows, self._count = 0, 0
        self._storage: LayerKV | None = None

    @property
    def new_states(self) -> LayerKV:
        """Keys and values (N, H, t, D) of the samples' new tokens."""
        assert self._storage is not None
        keys, values = self._storage
        used = slice(self._rows), slice(None), slice(self._count)
        return keys[used], values[used]

    def set_groups(self, groups: Sequence[RowGroups | None], rows: int) -> None:
        """Set which row of each prefix segment each of ``rows`` samples attends to.

        Added samples come after the existing ones.
        """
        self._visible, self._groups = _ungrouped(self.prefixes, groups)
        self._rows = rows

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor | Segments, Tensor | Segments]:
        """Append (N, H, new, D); return all keys and values that the samples attend to."""
        new = (key_states, value_states)
        start, self._count = self._count, self._count + key_states.shape[2]
        storage = self._storage
        if storage is None or len(storage[0]) < self._rows or storage[0].shape[2] < self._count:
            self._storage = storage = self._reallocated(new, start)
        for target, states in zip(storage, new, strict=True):
            target[: self._rows, :, start : self._count] = states
        return concatenated(self._visible, self._groups, self.new_states, self._segmented)

    def get_seq_length(self) -> int:
        """T + t."""
        return sum(int(keys.shape[2]) for keys, _ in self._visible) + self._count

    def select(self, rows: Tensor, first: int) -> None:
        """Keep the samples ``rows`` (N',) int64 and their columns from ``first`` on."""
        keys, values = self.new_states
        self._rows, self._count = len(rows), self._count - first
        self._storage = keys[rows, :, first:], values[rows, :, first:]

    def _reallocated(self, template: LayerKV, used: int) -> LayerKV:
        columns = self._count + SPARE_COLUMNS
        keys, values = (part.new_zeros((self._rows, part.shape[1], columns, part.shape[3]))
                        for part in template)  # fmt: skip
        if self._storage is not None:
            for old, new in zip(self._storage, (keys, values), strict=True):
                rows = min(len(old), self._rows)
                new[:rows, :, :used] = old[:rows, :, :used]
        return keys, values


def _ungrouped(
    prefixes: Sequence[LayerKV], groups: Sequence[RowGroups | None]
) -> tuple[list[LayerKV], list[RowGroups | None]]:
    """Replace groups of one row by one segment row a sample: no rearranging at every token."""
    pairs, remaining = list(prefixes), list(groups)
    for i, group in enumerate(groups):
        if group is not None and group.largest == 1:
            keys, values = pairs[i]
            if not group.in_order:
                pairs[i] = keys[group.index], values[group.index]
            remaining[i] = None
    return pairs, remaining


def concatenated(
    cached: Sequence[LayerKV],
    groups: Sequence[RowGroups | None],
    new_states: LayerKV,
    segmented: bool,
) -> tuple[Tensor | Segments, Tensor | Segments]:
    """Return a layer's keys and values: the cached segments, then the new ones of each row.

    One tensor each, if the attention does not take segments.
    """
    both: list[Segments] = []
    for i, new in enumerate(new_states):
        first = [Segment(pair[i], group) for pair, group in zip(cached, groups, strict=True)]
        both.append(Segments((*first, Segment(new))))
    keys, values = both if segmented else [segments.concatenated() for segments in both]
    return keys, values


def sample_cache(layers: Sequence[SampleLayer]) -> DynamicCache:
    """Return the cache object that transformers' models take."""
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache
