"""The keys and values of samples on their way: of their beginnings once, of each sample its own.

A token is written behind its sample's others in place; neither it nor the beginnings are copied.
"""

from collections.abc import Sequence

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from orchestrator.engines.kv_cache.attention import Groups, Part, Parts
from orchestrator.engines.kv_cache.rows import Pair

ROOM = 64  # tokens of spare room, made when the last is used up


class SamplesLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of N samples that go on from texts that were read.

    A sample may begin at a later column than another: what stands in its columns before that means
    nothing, and is for a mask to hide.

    Args:
        in_parts: whether the model's attention takes parts.

    Attributes:
        before: keys and values (P, H, T, D) of what they go on from, in one part or several.
    """

    before: Sequence[Pair] = ()
    keys: Tensor
    values: Tensor

    def __init__(self, in_parts: bool) -> None:
        super().__init__()
        self._in_parts = in_parts
        self._seen: list[Pair] = []
        self._groups: list[Groups | None] = []
        self._rows, self._count = 0, 0
        self._storage: Pair | None = None

    @property
    def own(self) -> Pair:
        """Keys and values (N, H, t, D) of the samples behind their beginnings."""
        assert self._storage is not None
        keys, values = self._storage
        here = slice(self._rows), slice(None), slice(self._count)
        return keys[here], values[here]

    def group(self, groups: Sequence[Groups | None], rows: int) -> None:
        """Which row of each part of ``before`` each of N samples sees; new ones come behind."""
        self._seen, self._groups = _alone(self.before, groups)
        self._rows = rows

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor | Parts, Tensor | Parts]:
        """Writes (N, H, new, D) behind what is there; gives all that the samples see."""
        new = (key_states, value_states)
        start, self._count = self._count, self._count + key_states.shape[2]
        storage = self._storage
        if storage is None or len(storage[0]) < self._rows or storage[0].shape[2] < self._count:
            self._storage = storage = self._with_room(new, start)
        for part, states in zip(storage, new, strict=True):
            part[: self._rows, :, start : self._count] = states
        return attended(self._seen, self._groups, self.own, self._in_parts)

    def get_seq_length(self) -> int:
        """T + t."""
        return sum(int(keys.shape[2]) for keys, _ in self._seen) + self._count

    def take(self, rows: Tensor, first: int) -> None:
        """Keeps some samples, ``rows`` (N',) int64, and their columns from ``first`` on."""
        keys, values = self.own
        self._rows, self._count = len(rows), self._count - first
        self._storage = keys[rows, :, first:], values[rows, :, first:]

    def _with_room(self, like: Pair, kept: int) -> Pair:
        columns = self._count + ROOM
        keys, values = (part.new_zeros((self._rows, part.shape[1], columns, part.shape[3]))
                        for part in like)  # fmt: skip
        if self._storage is not None:
            for old, new in zip(self._storage, (keys, values), strict=True):
                rows = min(len(old), self._rows)
                new[:rows, :, :kept] = old[:rows, :, :kept]
        return keys, values


def _alone(
    before: Sequence[Pair], groups: Sequence[Groups | None]
) -> tuple[list[Pair], list[Groups | None]]:
    """Parts of which no row is shared as each row's own: that spares rearranging at every token."""
    pairs, kept = list(before), list(groups)
    for i, of in enumerate(groups):
        if of is not None and of.most == 1:
            keys, values = pairs[i]
            if not of.in_order:
                pairs[i] = keys[of.index], values[of.index]
            kept[i] = None
    return pairs, kept


def attended(
    before: Sequence[Pair], groups: Sequence[Groups | None], own: Pair, in_parts: bool
) -> tuple[Tensor | Parts, Tensor | Parts]:
    """A layer's keys and its values: what was read before, in parts, and each row's ``own``.

    Joined in one tensor for attention that takes no parts.
    """
    both: list[Parts] = []
    for i, last in enumerate(own):
        first = [Part(pair[i], of) for pair, of in zip(before, groups, strict=True)]
        both.append(Parts((*first, Part(last))))
    keys, values = both if in_parts else [parts.whole() for parts in both]
    return keys, values


def samples_cache(layers: Sequence[SamplesLayer]) -> DynamicCache:
    """The cache that transformers' models take."""
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache
