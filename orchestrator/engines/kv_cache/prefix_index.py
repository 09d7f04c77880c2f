"""Which row of a store of keys and values begins with a text, or with most of it."""

from collections import Counter

from orchestrator.engines.kv_cache.partition import Row
from orchestrator.rewards.packed import Ids

MOST = 16  # names of a row: where texts that fork from it can begin


class Names:
    """Texts that rows begin with: of each row the first, a prompt's, and the latest."""

    def __init__(self) -> None:
        self._rows: dict[Ids, Row] = {}
        self._lengths: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    def longest(self, text: Ids) -> tuple[Row, int] | None:
        """The row with the longest name that a text begins with, and the name's length."""
        for length in sorted((n for n in self._lengths if n <= len(text)), reverse=True):
            row = self._rows.get(text[:length])
            if row is not None:
                return row, length
        return None

    def give(self, text: Ids, row: Row) -> None:
        """The row begins with a text; where another one does already nothing changes."""
        if text in self._rows:
            return
        self._rows[text] = row
        row.names.append(text)
        self._lengths[len(text)] += 1
        if len(row.names) > MOST:  # else a text of a thousand steps had a thousand
            self._forget(row.names.pop(1))

    def forget(self, row: Row) -> None:
        """The row's names are nobody's."""
        for text in row.names:
            self._forget(text)
        row.names = []

    def _forget(self, text: Ids) -> None:
        del self._rows[text]
        self._lengths[len(text)] -= 1
        if not self._lengths[len(text)]:
            del self._lengths[len(text)]
