"""The keys and values of samples on their way: of their beginnings once, of each sample its own.

A token is written behind its sample's others in place; neither it nor the beginnings are copied.
"""

from collections.abc import Sequence

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from orchestrator.engines.attention import Groups, Part, Parts
from orchestrator.engines.rows import Pair

ROOM = 64  # tokens of spare room, made when the last is used up


class SamplesLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of N samples that go on from texts that were read.

    Args:
        before: keys and values (P, H, T, D) of the texts, in one part or several.
        groups: which row of each part a sample sees.
        in_parts: whether the model's attention takes parts.
    """

    keys: Tensor
    values: Tensor

    def __init__(
        self, before: Sequence[Pair], groups: Sequence[Groups | None], in_parts: bool
    ) -> None:
        super().__init__()
        self._given, self._in_parts = before, in_parts
        self._before, self._groups = _alone(before, groups)
        self._count = 0
        self._storage: Pair | None = None

    @property
    def own(self) -> Pair:
        """Keys and values (N, H, t, D) of the samples behind their beginnings."""
        assert self._storage is not None
        keys, values = self._storage
        return keys[:, :, : self._count], values[:, :, : self._count]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor | Parts, Tensor | Parts]:
        """Writes (N, H, new, D) behind what is there; gives all that the samples see."""
        new = (key_states, value_states)
        start, self._count = self._count, self._count + key_states.shape[2]
        if self._storage is None or self._storage[0].shape[2] < self._count:
            self._storage = self._with_room(new, start)
        for storage, states in zip(self._storage, new, strict=True):
            storage[:, :, start : self._count] = states
        return attended(self._before, self._groups, self.own, self._in_parts)

    def get_seq_length(self) -> int:
        """T + t."""
        return sum(int(keys.shape[2]) for keys, _ in self._before) + self._count

    def take(self, rows: Tensor, groups: Sequence[Groups | None]) -> None:
        """Keeps some samples, ``rows`` (N',) int64, of the same texts."""
        assert self._storage is not None
        keys, values = self._storage
        self._storage = keys[rows], values[rows]
        self._before, self._groups = _alone(self._given, groups)

    def _with_room(self, like: Pair, kept: int) -> Pair:
        keys, values = (
            part.new_empty((*part.shape[:2], self._count + ROOM, part.shape[3])) for part in like
        )
        if self._storage is not None:
            for old, new in zip(self._storage, (keys, values), strict=True):
                new[:, :, :kept] = old[:, :, :kept]
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
