"""Index of cached prefixes: finds the cache row with the longest prefix of a sequence."""

from collections import Counter

from orchestrator.engines.kv_cache.partition import CacheRow
from orchestrator.rewards.packed import Ids

MAX_PREFIXES_PER_ROW = 16  # sequences can fork from a row after each of them


class PrefixIndex:
    """Maps cached prefixes to their rows: the first prefix of a row, a prompt, and the latest."""

    def __init__(self) -> None:
        self._rows: dict[Ids, CacheRow] = {}
        self._lengths: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    def longest_match(self, sequence: Ids) -> tuple[CacheRow, int] | None:
        """Return the row with the longest indexed prefix of a sequence, and the prefix's length."""
        for length in sorted((n for n in self._lengths if n <= len(sequence)), reverse=True):
            row = self._rows.get(sequence[:length])
            if row is not None:
                return row, length
        return None

    def add(self, prefix: Ids, row: CacheRow) -> None:
        """Index a prefix that a row begins with, unless it is indexed for another row."""
        if prefix in self._rows:
            return
        self._rows[prefix] = row
        row.prefixes.append(prefix)
        self._lengths[len(prefix)] += 1
        if len(row.prefixes) > MAX_PREFIXES_PER_ROW:  # a long search has thousands of prefixes
            self._remove(row.prefixes.pop(1))

    def remove(self, row: CacheRow) -> None:
        """Remove all prefixes of a row."""
        for prefix in row.prefixes:
            self._remove(prefix)
        row.prefixes = []

    def _remove(self, prefix: Ids) -> None:
        del self._rows[prefix]
        self._lengths[len(prefix)] -= 1
        if not self._lengths[len(prefix)]:
            del self._lengths[len(prefix)]
