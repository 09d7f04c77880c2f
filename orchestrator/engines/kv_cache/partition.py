"""Partitions of the prefix cache: cache rows of one length with least-recently-used eviction."""

import itertools
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from orchestrator.engines.kv_cache.row_storage import CopyPlan, LayerKV, RowStorage
from orchestrator.rewards.packed import Ids


@dataclass(eq=False)
class CacheRow:
    """One cache row for ``sequence``; its first ``offset`` tokens are stored in row ``parent``."""

    index: int  # row index in its partition
    sequence: Ids = ()
    parent: "CacheRow | None" = None
    offset: int = 0
    children: set["CacheRow"] = field(default_factory=set)  # rows whose parent is this one
    prefixes: list[Ids] = field(default_factory=list)  # those in the prefix index

    @property
    def length(self) -> int:
        """Number of tokens stored in this row."""
        return len(self.sequence) - self.offset

    def clear(self) -> None:
        """Empty the row."""
        if self.parent is not None:
            self.parent.children.remove(self)
        self.sequence, self.parent, self.offset = (), None, 0
        self.children, self.prefixes = set(), []


class Partition:
    """Rows that are all as long as the longest one needs; row 0 is reserved and holds zeros.

    Args:
        memory: limit in bytes. A batch that needs more gets more, which is kept until rows are
            reallocated.
    """

    def __init__(self, memory: int) -> None:
        self.storage = RowStorage()
        self._memory = memory
        self._lru: OrderedDict[CacheRow, None] = OrderedDict()  # most recently used last

    def __len__(self) -> int:
        return len(self._lru)

    def clear(self) -> None:
        """Drop all rows. Their memory is kept for new rows, up to the limit."""
        if self.storage.nbytes > self._memory:
            self.storage = RowStorage()
        self.storage.zero()
        self._lru.clear()

    def touch(self, row: CacheRow) -> None:
        """Mark a row as the most recently used."""
        self._lru.move_to_end(row)

    def release(self, row: CacheRow) -> None:
        """Mark an empty row as the first to be reused."""
        self._lru.move_to_end(row, last=False)

    def acquire(self, pinned: Container[CacheRow]) -> CacheRow:
        """Return a new row if memory allows, else the oldest row not in ``pinned``, not cleared."""
        if (len(self._lru) + 2) * self.storage.row_nbytes > self._memory:
            for row in self._lru:
                if row not in pinned:
                    return row
        row = CacheRow(len(self._lru) + 1)
        self._lru[row] = None
        return row

    def reserve(
        self, pinned: Container[CacheRow], length: int, template: Sequence[LayerKV] = ()
    ) -> list[CacheRow]:
        """Allocate all rows with room for ``length`` tokens; return the evicted rows.

        Where that exceeds the memory, rows become as short as their contents allow, and as few as
        possible of the least recently used rows outside ``pinned`` are evicted. Row indices change.

        Args:
            pinned: rows that are not evicted.
            length: length of the longest sequence part that will be written.
            template: layers of any size, used where none exist; without both nothing is done.
        """
        storage = self.storage
        if storage.fits(len(self._lru) + 1, length) or not (storage.layers or template):
            return []
        evicted: list[CacheRow] = []
        row_length = max(length, storage.row_length)
        if storage.max_rows(self._memory, row_length) <= len(self._lru):
            longest = max(length, *(row.length for row in self._lru))
            limit = storage.max_rows(self._memory, longest) - 1
            evictable = (row for row in list(self._lru) if row not in pinned)
            evicted = list(itertools.islice(evictable, max(len(self._lru) - limit, 0)))
            for row in evicted:
                del self._lru[row]
            row_length = max(length, *(row.length for row in self._lru))
        remaining = sorted(self._lru, key=lambda row: row.index)
        indices = [0, *(row.index for row in remaining)]
        storage.reallocate(indices, row_length, self._memory, template)
        for index, row in enumerate(remaining, 1):
            row.index = index
        return evicted

    def write(self, plan: CopyPlan, source: Sequence[LayerKV]) -> None:
        """Copy tokens of ``source``, layers of (N, H, Tq, D), to rows by their indices."""
        if plan.end:
            indices = range(len(self._lru) + 1)
            if not self.storage.fits(len(indices), plan.end):  # before the first write
                self.storage.reallocate(indices, plan.end, self._memory, source)
            plan.copy(source, self.storage.layers)
