"""Shelves: rows of keys and values of one width, of which those that were used last stay."""

import itertools
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from orchestrator.engines.kv_cache.rows import Columns, Pair, Rows
from orchestrator.rewards.packed import Ids


@dataclass(eq=False)
class Row:
    """One row: ``text`` as far as it is known here, its first ``offset`` tokens in row ``root``."""

    place: int  # on its shelf
    text: Ids = ()
    root: "Row | None" = None
    offset: int = 0
    behind: set["Row"] = field(default_factory=set)  # rows that have this one for a root
    names: list[Ids] = field(default_factory=list)  # texts that it begins with

    @property
    def tokens(self) -> int:
        """How many stand here."""
        return len(self.text) - self.offset

    def clear(self) -> None:
        """It holds nothing."""
        if self.root is not None:
            self.root.behind.remove(self)
        self.text, self.root, self.offset, self.behind, self.names = (), None, 0, set(), []


class Shelf:
    """Rows that are all as long as the longest needs; place 0 is nobody's and holds zeros.

    Args:
        memory: bytes that they may take. A batch that needs more gets more, which stays for the
            next one until rows are made or grow again.
    """

    def __init__(self, memory: int) -> None:
        self.stored = Rows()
        self._memory = memory
        self._used: OrderedDict[Row, None] = OrderedDict()  # the latest used last

    def __len__(self) -> int:
        return len(self._used)

    def empty(self) -> None:
        """Drops all rows; their memory stays for others, as far as it is allowed."""
        if self.stored.bytes > self._memory:
            self.stored = Rows()
        self.stored.empty()
        self._used.clear()

    def use(self, row: Row) -> None:
        """The row is the latest used."""
        self._used.move_to_end(row)

    def waste(self, row: Row) -> None:
        """The row holds nothing, and is the first to be taken for something else."""
        self._used.move_to_end(row, last=False)

    def free(self, held: Container[Row]) -> Row:
        """A row to be cleared, not one of ``held``: new if there is memory, else the oldest."""
        if (len(self._used) + 2) * self.stored.bytes_of_one > self._memory:
            for row in self._used:
                if row not in held:
                    return row
        row = Row(len(self._used) + 1)
        self._used[row] = None
        return row

    def fit(self, held: Container[Row], longest: int, like: Sequence[Pair] = ()) -> list[Row]:
        """Room for all rows, and for ``longest`` tokens in each of them.

        Where that takes more than the memory the oldest but ``held`` go, as far as they must, and
        rows become as short as they may be. Gives those that went; places change by that.

        Args:
            held: rows that stay.
            longest: of what will be written to them.
            like: layers of any size, where there are none; without them there is nothing to do.
        """
        stored = self.stored
        if stored.has_room(len(self._used) + 1, longest) or not (stored.layers or like):
            return []
        gone: list[Row] = []
        columns = max(longest, stored.columns)
        if stored.count_within(self._memory, columns) <= len(self._used):
            widest = max(longest, *(row.tokens for row in self._used))
            most = stored.count_within(self._memory, widest) - 1
            others = (row for row in list(self._used) if row not in held)
            gone = list(itertools.islice(others, max(len(self._used) - most, 0)))
            for row in gone:
                del self._used[row]
            columns = max(longest, *(row.tokens for row in self._used))
        kept = sorted(self._used, key=lambda row: row.place)
        stored.make([0, *(row.place for row in kept)], columns, self._memory, like)
        for place, row in enumerate(kept, 1):
            row.place = place
        return gone

    def write(self, tokens: Columns, source: Sequence[Pair]) -> None:
        """Writes tokens of ``source``, layers of (N, H, Tq, D), to rows by their places."""
        if tokens.longest:
            places = range(len(self._used) + 1)
            if not self.stored.has_room(len(places), tokens.longest):  # before anything was written
                self.stored.make(places, tokens.longest, self._memory, source)
            tokens.copy(source, self.stored.layers)
