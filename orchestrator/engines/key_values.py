"""Keys and values of texts that a causal model has read, kept for the texts that go on from them.

A row of the store holds a text, or what stands behind a text of another row, its *root*. A text
that goes on from a row's whole content is written behind it, in place; those that fork from it get
rows of their own behind it. *Pieces* are candidates (chunks, single tokens) that were computed
behind a text: the one that is chosen is copied behind its text when it is asked for, the others are
forgotten with the next ones. What has no room any longer is forgotten too, and computed again when
it is asked for: the store never decides a result.

Beam search, with a prompt ``p`` of 60 tokens in row 0: ``p a`` and ``p b`` were candidates, and go
on. Both fork, so ``a`` is copied to row 1 and ``b`` to row 2, both with row 0 for their root. Then
``p a c`` and ``p a d`` go on: ``c`` is written behind ``a`` in row 1, row 3 gets a copy of ``a``
and ``d``, of the same root. The 60 tokens of ``p`` stay where they are, for all beams.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from orchestrator.engines.known import Known
from orchestrator.engines.rows import Columns, Pair, Rows
from orchestrator.rewards.packed import Ids

MEMORY_MIB = 256  # of rows, and as much again of pieces
LEAST_ROWS = 16


@dataclass(eq=False)
class _Computed:
    """What one forward computed: layers of (N, H, Tq, D), and behind which texts."""

    layers: Sequence[Pair]
    bytes: int
    parents: list[Ids]


@dataclass(eq=False)
class _Pieces:
    """Pieces behind a text: in a row of ``computed``, each from a column of it on."""

    computed: _Computed
    row: int
    starts: dict[Ids, int]


@dataclass(frozen=True)
class _Piece:
    """One of them, of ``count`` tokens."""

    computed: _Computed
    row: int
    start: int
    count: int


@dataclass(frozen=True)
class _Found:
    """The row that holds the most of a text, how much, and a piece that goes on from there."""

    row: int | None = None
    length: int = 0
    piece: _Piece | None = None


@dataclass
class _Row:
    """``text`` as far as it is known here, its first ``offset`` tokens in row ``root``."""

    text: Ids = ()
    root: int | None = None
    offset: int = 0
    behind: int = 0  # rows that have this one for a root


class KeyValues:
    """The store of one model.

    Args:
        memory_mib: of its rows, and of its pieces; a batch that needs more gets more, and so do
            rows that grow longer than they were when their number was decided.
    """

    def __init__(self, memory_mib: int = MEMORY_MIB) -> None:
        self._memory = memory_mib * 2**20
        self._stored = Rows()
        self._begin()

    def forget(self) -> None:
        """Drops all texts; the memory of the rows stays for others, as far as it is allowed."""
        if self._stored.bytes > self._memory:
            self._stored = Rows()
        self._stored.empty()
        self._begin()

    def _begin(self) -> None:
        self._rows: list[_Row] = []
        self._names: dict[Ids, int] = {}  # a text, and the row that begins with it
        self._names_of: list[list[Ids]] = []
        # Rows, the latest used last; a root behind all that stand behind it, to outlive them.
        self._used: OrderedDict[int, None] = OrderedDict()
        self._pieces: dict[Ids, list[_Pieces]] = {}  # by the text that they are behind
        self._computed: OrderedDict[int, _Computed] = OrderedDict()
        self._piece_bytes = 0
        self._lengths: Counter[int] = Counter()  # of names

    @property
    def layers(self) -> int:
        """How many layers it holds; 0 before anything is kept."""
        return len(self._stored.layers)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self._rows)

    @torch.inference_mode()
    def known(self, texts: Sequence[Ids]) -> Known:
        """Gives each of N different texts a row, with as much of it as was read before.

        Rows that the texts are not wholly in are theirs alone, to be written behind.
        """
        found = [self._find(text) for text in texts]
        held = {one.row for one in found if one.row is not None}
        held |= {root for row in held if (root := self._rows[row].root) is not None}
        rows = self._in_place(texts, found)
        copies: list[tuple[int, int, int]] = []
        for i, one in enumerate(found):
            if i not in rows:
                rows[i] = new = self._free_row(held)
                held.add(new)
                if one.row is not None:
                    copies.append(self._fork(one.row, new, texts[i][: one.length]))
        placed = [rows[i] for i in range(len(texts))]
        self._stored.make_room(len(self._rows), 0, memory=self._memory)
        self._stored.copy_beginnings(copies)
        self._join(texts, placed, found)
        for row in placed:
            self._used.move_to_end(row)
            if (root := self._rows[row].root) is not None:
                self._used.move_to_end(root)
        lengths = [one.length + (one.piece.count if one.piece else 0) for one in found]
        own = [self._rows[row] for row in placed]
        roots = [
            row if one.root is None else one.root for row, one in zip(placed, own, strict=True)
        ]
        shared = [
            n if one.root is None else one.offset for n, one in zip(lengths, own, strict=True)
        ]
        return Known(placed, roots, shared, lengths)

    def taken(self, known: Known, layer: int) -> list[Pair]:
        """A layer's keys and values of the parts of some texts: (P, H, T, D) of each part's rows.

        What stands behind a shorter one means nothing, and is for a mask to hide.
        """
        parts = zip(known.places, known.widths, strict=True)
        return [self._stored.taken(rows, width, layer) for rows, width in parts]

    @torch.inference_mode()
    def write(
        self, texts: Sequence[Ids], known: Known, new: Sequence[Pair], starts: Sequence[int]
    ) -> None:
        """Writes the rest of each text, in ``new`` (N, H, Tq, D) from column ``starts[i]`` on."""
        at, longest = Columns(), 0
        for i, (text, row, length) in enumerate(zip(texts, known.rows, known.lengths, strict=True)):
            offset = self._rows[row].offset
            at.add(row, length - offset, i, starts[i], len(text) - length)
            longest = max(longest, len(text) - offset)
        self._stored.make_room(len(self._rows), longest, new, self._memory)
        at.copy(new, self._stored.layers)
        for row, text, length in zip(known.rows, texts, known.lengths, strict=True):
            if len(text) > length:
                self._rows[row].text = text
            self._name(text, row)

    def remember(
        self,
        parents: Sequence[Ids],
        pieces: Sequence[Sequence[tuple[Ids, int]]],
        new: Sequence[Pair],
    ) -> None:
        """Keeps pieces behind ``parents[i]``, in row i of ``new`` from given columns on."""
        computed = _Computed(new, sum(part.nbytes for pair in new for part in pair), [])
        for row, (parent, own) in enumerate(zip(parents, pieces, strict=True)):
            if starts := {ids: start for ids, start in own if ids}:
                self._pieces.setdefault(parent, []).append(_Pieces(computed, row, starts))
                computed.parents.append(parent)
        self._computed[id(computed)] = computed
        self._piece_bytes += computed.bytes
        while len(self._computed) > 1 and self._piece_bytes > self._memory:
            _, oldest = self._computed.popitem(last=False)
            self._piece_bytes -= oldest.bytes
            for parent in oldest.parents:
                left = [one for one in self._pieces.pop(parent, ()) if one.computed is not oldest]
                if left:
                    self._pieces[parent] = left

    def _find(self, text: Ids) -> _Found:
        for length in sorted((n for n in self._lengths if n <= len(text)), reverse=True):
            head = text[:length]
            if head in self._names:
                return _Found(self._names[head], length, self._piece(head, text[length:]))
        return _Found()

    def _piece(self, parent: Ids, rest: Ids) -> _Piece | None:
        """The longest piece behind a text that begins as ``rest`` does."""
        there = self._pieces.get(parent, ())
        for count in range(len(rest), 0, -1) if there else ():
            for one in there:
                start = one.starts.get(rest[:count])
                if start is not None:
                    return _Piece(one.computed, one.row, start, count)
        return None

    def _in_place(self, texts: Sequence[Ids], found: Sequence[_Found]) -> dict[int, int]:
        """The row of each text that needs no new one.

        It stands in one wholly, or goes on from the end of one: the first of those that go on from
        a row behind a root, and the only one that goes on from a root, which stays short.
        """
        rows: dict[int, int] = {}
        going: dict[int, list[int]] = {}
        for i, (text, one) in enumerate(zip(texts, found, strict=True)):
            if one.row is None:
                continue
            if one.piece is None and one.length == len(text):
                rows[i] = one.row
            elif one.length == len(self._rows[one.row].text):
                going.setdefault(one.row, []).append(i)
        for number, (first, *others) in going.items():
            row = self._rows[number]
            if row.root is not None or not (others or row.behind):
                rows[first] = number
        return rows

    def _fork(self, source: int, target: int, text: Ids) -> tuple[int, int, int]:
        """Row ``target`` begins with ``text``, as ``source`` does; what is to be copied for it."""
        root, offset = self._rows[source].root, self._rows[source].offset
        if root is None:
            root, offset = source, len(text)
        self._rows[root].behind += 1
        self._rows[target] = _Row(text, root, offset)
        return source, target, len(text) - offset

    def _free_row(self, held: set[int]) -> int:
        """A row that holds nothing, made if there is memory, else of the text longest not used."""
        full = (len(self._rows) + 1) * self._stored.bytes_of_one > self._memory
        if full and len(self._rows) >= LEAST_ROWS:
            for row in self._used:
                if row not in held:
                    self._forget_row(row)
                    return row
        self._rows.append(_Row())
        self._names_of.append([])
        self._used[len(self._rows) - 1] = None
        return len(self._rows) - 1

    def _forget_row(self, number: int) -> None:
        row = self._rows[number]
        assert not row.behind
        if row.root is not None:
            self._rows[row.root].behind -= 1
        for text in self._names_of[number]:
            del self._names[text]
            self._lengths[len(text)] -= 1
            if not self._lengths[len(text)]:
                del self._lengths[len(text)]
        self._rows[number], self._names_of[number] = _Row(), []

    def _name(self, text: Ids, row: int) -> None:
        if text not in self._names:
            self._names[text] = row
            self._names_of[row].append(text)
            self._lengths[len(text)] += 1

    def _join(self, texts: Sequence[Ids], rows: Sequence[int], found: Sequence[_Found]) -> None:
        """Copies pieces behind their texts, the first ones of ``texts``."""
        groups: dict[int, tuple[_Computed, Columns]] = {}
        longest = 0
        for row, one in zip(rows, found, strict=True):
            if (piece := one.piece) is not None:
                _, at = groups.setdefault(id(piece.computed), (piece.computed, Columns()))
                column = one.length - self._rows[row].offset
                at.add(row, column, piece.row, piece.start, piece.count)
                longest = max(longest, column + piece.count)
        self._stored.make_room(len(self._rows), longest, memory=self._memory)
        for computed, at in groups.values():
            at.copy(computed.layers, self._stored.layers)
        for text, row, one in zip(texts, rows, found, strict=True):
            if one.piece is not None:
                self._rows[row].text = text[: one.length + one.piece.count]
                self._name(self._rows[row].text, row)
