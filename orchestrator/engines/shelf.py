"""Shelves: rows of keys and values of one width, of which those that were used last stay."""

from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from orchestrator.engines.rows import Columns, Pair, Rows
from orchestrator.rewards.packed import Ids

LEAST_ROWS = 16


@dataclass(eq=False)
class Row:
    """One row: ``text`` as far as it is known here, its first ``offset`` tokens in row ``root``."""

    place: int  # on its shelf
    text: Ids = ()
    root: "Row | None" = None
    offset: int = 0
    behind: set["Row"] = field(default_factory=set)  # rows that have this one for a root
    names: list[Ids] = field(default_factory=list)  # texts that it begins with

    def clear(self) -> None:
        """It holds nothing."""
        if self.root is not None:
            self.root.behind.remove(self)
        self.text, self.root, self.offset, self.behind, self.names = (), None, 0, set(), []


class Shelf:
    """Rows that are all as long as the longest needs.

    Args:
        memory: bytes that they may take; only a batch that needs more gets more.
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
        full = (len(self._used) + 1) * self.stored.bytes_of_one > self._memory
        if full and len(self._used) >= LEAST_ROWS:
            for row in self._used:
                if row not in held:
                    return row
        row = Row(len(self._used))
        self._used[row] = None
        return row

    def grow(self, held: Container[Row], longest: int) -> list[Row]:
        """Room for ``longest`` tokens in each row; those that had to go for it, never of ``held``.

        Places change by that.
        """
        gone: list[Row] = []
        if longest > self.stored.columns:
            most = max(self.stored.count_within(self._memory, longest), LEAST_ROWS)
            oldest = list(self._used)[: max(len(self._used) - most, 0)]
            gone = [row for row in oldest if row not in held]
        if gone:
            for row in gone:
                del self._used[row]
            kept = sorted(self._used, key=lambda row: row.place)
            self.stored.keep([row.place for row in kept])
            for place, row in enumerate(kept):
                row.place = place
        self.stored.make_room(len(self._used), longest, self._memory)
        return gone

    def write(self, tokens: Columns, source: Sequence[Pair]) -> None:
        """Writes tokens of ``source``, layers of (N, H, Tq, D), to rows by their places."""
        if tokens.longest:
            self.stored.make_room(len(self._used), tokens.longest, self._memory, source)
            tokens.copy(source, self.stored.layers)
