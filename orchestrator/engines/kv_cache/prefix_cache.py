"""Prefix cache: keys and values of sequences, reused by sequences with the same prefix.

A cache row stores a sequence, or the tokens that follow a prefix stored in another row, its
*parent*. Parents and children are in separate partitions, so that long prompts do not widen the
rows of their children. The first sequence that continues the full contents of a child row is
appended to it in place; a parent is continued in place only if exactly one sequence continues it
and it has no children. Other sequences fork from their prefix and get child rows. *Branches* are
candidates (chunks, single tokens) that were computed after a sequence: a branch is copied to a row
when a sequence with it is looked up; the oldest forwards' branches are dropped when memory runs
out. Evicted rows are computed again when they are needed: the cache never changes a result.

Beam search, with a prompt ``p`` of 60 tokens as parent: ``p a`` and ``p b`` were branches and are
looked up. Both fork, so ``a`` is copied to child row 1 and ``b`` to child row 2. Then ``p a c`` and
``p a d`` are looked up: ``c`` is appended to ``a`` in row 1, row 3 gets a copy of ``a`` and ``d``.
The 60 tokens of ``p`` are stored once, for all beams.
"""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from orchestrator.engines.kv_cache.branch_states import Branch, BranchStates, ForwardStates
from orchestrator.engines.kv_cache.partition import CacheRow, Partition
from orchestrator.engines.kv_cache.prefix_index import PrefixIndex
from orchestrator.engines.kv_cache.prefix_match import PrefixMatches
from orchestrator.engines.kv_cache.row_storage import CopyPlan, LayerKV
from orchestrator.rewards.packed import Ids

MEMORY_MIB = 256  # for rows (half of it for parents), and the same again for branches


@dataclass(frozen=True)
class _Match:
    """The row with the longest prefix of a sequence, its length, and a branch that continues it."""

    row: CacheRow | None = None
    length: int = 0
    branch: Branch | None = None


class PrefixCache:
    """The prefix cache of one model.

    Args:
        memory_mib: limit of its rows, and of its branches; a batch that needs more gets more.
    """

    def __init__(self, memory_mib: float = MEMORY_MIB) -> None:
        self._memory = int(memory_mib * 2**20)
        self._parents, self._children = Partition(self._memory // 2), Partition(self._memory // 2)
        self._reset_index()

    def clear(self) -> None:
        """Evict everything. The memory of the rows is kept for new ones, up to the limit."""
        self._parents.clear()
        self._children.clear()
        self._reset_index()

    def _reset_index(self) -> None:
        self._index = PrefixIndex()
        self._branches = BranchStates(self._memory)

    @property
    def layers(self) -> int:
        """Number of layers; 0 before the first write."""
        return len(self._parents.storage.layers)

    @property
    def rows(self) -> int:
        """Number of cache rows."""
        return len(self._parents) + len(self._children)

    @property
    def nbytes(self) -> int:
        """Bytes of all cache rows."""
        return self._parents.storage.nbytes + self._children.storage.nbytes

    @torch.inference_mode()
    def match(self, sequences: Sequence[Ids]) -> PrefixMatches:
        """Return a cache row for each of N different sequences, with its longest cached prefix.

        A row that does not hold its full sequence is not shared with other sequences and can be
        appended to. Earlier matches become invalid: their rows may be reused. If an error occurs,
        such as out of memory, the cache is cleared and the error is raised again.
        """
        with self._clear_on_error():
            return self._match_all(sequences)

    @contextmanager
    def _clear_on_error(self) -> Iterator[None]:
        """Clear the cache if the block fails: its rows may be incomplete."""
        try:
            yield
        except BaseException:
            self.clear()
            raise

    def _match_all(self, sequences: Sequence[Ids]) -> PrefixMatches:
        matches = [self._match(sequence) for sequence in sequences]
        pinned = {match.row for match in matches if match.row is not None}
        pinned |= {row.parent for row in pinned if row.parent is not None}
        row_of = self._reusable_rows(sequences, matches)
        copies: list[tuple[CacheRow, CacheRow, int]] = []
        for i, match in enumerate(matches):
            if i not in row_of and match.row is None:
                row_of[i] = self._acquire(self._parents, pinned)
            elif i not in row_of and match.row is not None:
                row_of[i] = self._acquire(self._children, pinned)
                copies.append(self._fork(match.row, row_of[i], sequences[i][: match.length]))
            pinned.add(row_of[i])
        rows = [row_of[i] for i in range(len(sequences))]
        self._reserve(sequences, rows, pinned)
        self._children.storage.copy_prefixes(
            [(source.index, target.index, count) for source, target, count in copies if count]
        )
        self._append_branches(sequences, rows, matches)
        for row in rows:
            self._partition(row).touch(row)
            if row.parent is not None:
                self._parents.touch(row.parent)
        lengths = [match.length + (match.branch.count if match.branch else 0) for match in matches]
        parents = [row.parent or row for row in rows]
        in_parents = [
            row.offset if row.parent else n for n, row in zip(lengths, rows, strict=True)
        ]  # fmt: skip
        return PrefixMatches(rows, parents, in_parents, lengths)

    def gather(self, matches: PrefixMatches, layer: int) -> list[LayerKV]:
        """Return a layer's keys and values of each segment of ``matches``: (P, H, T, D) each.

        Columns after the end of a shorter row are undefined; a mask must hide them.
        """
        partitions = (self._parents, self._children)
        segments = zip(partitions, matches.segments, matches.widths, strict=False)
        return [partition.storage.gather(rows, width, layer) for partition, rows, width in segments]

    @torch.inference_mode()
    def write(
        self,
        sequences: Sequence[Ids],
        matches: PrefixMatches,
        new: Sequence[LayerKV],
        starts: Sequence[int],
    ) -> None:
        """Write the uncached tokens of sequence i: ``new`` (N, H, Tq, D) from ``starts[i]`` on."""
        plans = {self._parents: CopyPlan(), self._children: CopyPlan()}
        triples = zip(sequences, matches.rows, matches.cached_lengths, strict=True)
        for i, (sequence, row, length) in enumerate(triples):
            plans[self._partition(row)].add(
                row.index, length - row.offset, i, starts[i], len(sequence) - length
            )
        with self._clear_on_error():
            for partition, plan in plans.items():
                partition.write(plan, new)
        for row, sequence, length in zip(
            matches.rows, sequences, matches.cached_lengths, strict=True
        ):
            if len(sequence) > length:
                row.sequence = sequence
            self._index.add(sequence, row)

    def add_branches(
        self,
        trunks: Sequence[Ids],
        branches: Sequence[Sequence[tuple[Ids, int]]],
        new: Sequence[LayerKV],
    ) -> None:
        """Keep the branches of each trunk: (tokens, start column) in row i of ``new``."""
        self._branches.add(trunks, branches, new)

    def _match(self, sequence: Ids) -> _Match:
        longest = self._index.longest_match(sequence)
        if longest is None:
            return _Match()
        row, length = longest
        return _Match(
            row, length, self._branches.longest_match(sequence[:length], sequence[length:])
        )

    def _reusable_rows(
        self, sequences: Sequence[Ids], matches: Sequence[_Match]
    ) -> dict[int, CacheRow]:
        """Return the rows of the sequences that need no new one, by index of the sequence.

        A sequence gets the row that holds all of it. A child row also goes to the first sequence
        that continues its full contents. A parent row is continued only if exactly one sequence
        continues it and it has no children; this keeps parents short.
        """
        rows: dict[int, CacheRow] = {}
        continuing: dict[CacheRow, list[int]] = {}
        for i, (sequence, match) in enumerate(zip(sequences, matches, strict=True)):
            if match.row is None:
                continue
            if match.branch is None and match.length == len(sequence):
                rows[i] = match.row
            elif match.length == len(match.row.sequence):
                continuing.setdefault(match.row, []).append(i)
        for row, (first, *others) in continuing.items():
            if row.parent is not None or not (others or row.children):
                rows[first] = row
        return rows

    def _fork(
        self, source: CacheRow, target: CacheRow, prefix: Ids
    ) -> tuple[CacheRow, CacheRow, int]:
        """Make ``target`` a fork of ``source`` at ``prefix``; return the copy that it needs."""
        parent, offset = source.parent, source.offset
        if parent is None:
            parent, offset = source, len(prefix)
        parent.children.add(target)
        target.sequence, target.parent, target.offset = prefix, parent, offset
        return source, target, len(prefix) - offset

    def _partition(self, row: CacheRow) -> Partition:
        return self._parents if row.parent is None else self._children

    def _acquire(self, partition: Partition, pinned: Container[CacheRow]) -> CacheRow:
        """Return an empty row."""
        row = partition.acquire(pinned)
        self._evict(row)
        return row

    def _evict(self, row: CacheRow) -> None:
        for child in list(row.children):
            self._evict(child)
            self._children.release(child)
        self._index.remove(row)
        row.clear()

    def _reserve(
        self, sequences: Sequence[Ids], rows: Sequence[CacheRow], pinned: Container[CacheRow]
    ) -> None:
        """Make room for each full sequence in its row."""
        for partition in (self._parents, self._children):
            indices = [i for i, row in enumerate(rows) if self._partition(row) is partition]
            longest = max((len(sequences[i]) - rows[i].offset for i in indices), default=0)
            template = self._parents.storage.layers
            for row in partition.reserve(pinned, longest, template) if indices else ():
                self._evict(row)

    def _append_branches(
        self, sequences: Sequence[Ids], rows: Sequence[CacheRow], matches: Sequence[_Match]
    ) -> None:
        """Copy the matched branches to the rows of their sequences."""
        groups: dict[tuple[int, Partition], tuple[ForwardStates, CopyPlan]] = {}
        for row, match in zip(rows, matches, strict=True):
            if (branch := match.branch) is not None:
                key = id(branch.states), self._partition(row)
                _, plan = groups.setdefault(key, (branch.states, CopyPlan()))
                plan.add(
                    row.index, match.length - row.offset, branch.row, branch.start, branch.count
                )
        for (_, partition), (states, plan) in groups.items():
            partition.write(plan, states.layers)
        for sequence, row, match in zip(sequences, rows, matches, strict=True):
            if match.branch is not None:
                row.sequence = sequence[: match.length + match.branch.count]
                self._index.add(row.sequence, row)
