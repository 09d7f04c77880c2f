"""Keys and values of texts that a causal model has read, kept for the texts that go on from them.

A row of the store holds a text, or what stands behind a text of another row, its *root*. The two
kinds are on shelves of their own: a long prompt does not widen the rows of what stands behind it. A
text that goes on from a row's whole content is written behind it, in place; those that fork from it
get rows of their own behind it. *Pieces* are candidates (chunks, single tokens) that were computed
behind a text: the one that is chosen is copied behind its text when it is asked for, the others are
forgotten with the next ones. What has no room any longer is forgotten too, and computed again when
it is asked for: the store never decides a result.

Beam search, with a prompt ``p`` of 60 tokens for a root: ``p a`` and ``p b`` were candidates, and
go on. Both fork, so ``a`` is copied to row 1 behind it and ``b`` to row 2. Then ``p a c`` and
``p a d`` go on: ``c`` is written behind ``a`` in row 1, row 3 gets a copy of ``a`` and ``d``. The
60 tokens of ``p`` stay where they are, for all beams.
"""

from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from orchestrator.engines.kv_cache.partition import Row, Shelf
from orchestrator.engines.kv_cache.prefix_index import Names
from orchestrator.engines.kv_cache.prefix_match import Known
from orchestrator.engines.kv_cache.rows import Columns, Pair
from orchestrator.rewards.packed import Ids

MEMORY_MIB = 256  # of rows, half for roots, and as much again of pieces


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

    row: Row | None = None
    length: int = 0
    piece: _Piece | None = None


class KeyValues:
    """The store of one model.

    Args:
        memory_mib: of its rows, and of its pieces; a batch that needs more gets more.
    """

    def __init__(self, memory_mib: float = MEMORY_MIB) -> None:
        self._memory = int(memory_mib * 2**20)
        self._roots, self._behind = Shelf(self._memory // 2), Shelf(self._memory // 2)
        self._begin()

    def forget(self) -> None:
        """Drops all texts; the memory of the rows stays for others, as far as it is allowed."""
        self._roots.empty()
        self._behind.empty()
        self._begin()

    def _begin(self) -> None:
        self._names = Names()
        self._pieces: dict[Ids, list[_Pieces]] = {}  # by the text that they are behind
        self._computed: OrderedDict[int, _Computed] = OrderedDict()
        self._piece_bytes = 0

    @property
    def layers(self) -> int:
        """How many layers it holds; 0 before anything is kept."""
        return len(self._roots.stored.layers)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self._roots) + len(self._behind)

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return self._roots.stored.bytes + self._behind.stored.bytes

    @torch.inference_mode()
    def known(self, texts: Sequence[Ids]) -> Known:
        """Gives each of N different texts a row, with as much of it as was read before.

        Rows that the texts are not wholly in are theirs alone, to be written behind. What was given
        before is void: rows may have gone elsewhere. Where memory runs out all is forgotten.
        """
        with self._whole():
            return self._known(texts)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What was done by half means nothing."""
        try:
            yield
        except BaseException:
            self.forget()
            raise

    def _known(self, texts: Sequence[Ids]) -> Known:
        found = [self._find(text) for text in texts]
        held = {one.row for one in found if one.row is not None}
        held |= {row.root for row in held if row.root is not None}
        rows = self._in_place(texts, found)
        copies: list[tuple[Row, Row, int]] = []
        for i, one in enumerate(found):
            if i not in rows and one.row is None:
                rows[i] = self._free(self._roots, held)
            elif i not in rows and one.row is not None:
                rows[i] = self._free(self._behind, held)
                copies.append(self._fork(one.row, rows[i], texts[i][: one.length]))
            held.add(rows[i])
        placed = [rows[i] for i in range(len(texts))]
        self._make_room(texts, placed, held)
        self._behind.stored.copy_beginnings(
            [(source.place, target.place, count) for source, target, count in copies if count]
        )
        self._join(texts, placed, found)
        for row in placed:
            self._shelf(row).use(row)
            if row.root is not None:
                self._roots.use(row.root)
        lengths = [one.length + (one.piece.count if one.piece else 0) for one in found]
        roots = [row.root or row for row in placed]
        shared = [
            row.offset if row.root else n for n, row in zip(lengths, placed, strict=True)
        ]  # fmt: skip
        return Known(placed, roots, shared, lengths)

    def taken(self, known: Known, layer: int) -> list[Pair]:
        """A layer's keys and values of the parts of some texts: (P, H, T, D) of each part's rows.

        What stands behind a shorter one means nothing, and is for a mask to hide.
        """
        parts = zip((self._roots, self._behind), known.places, known.widths, strict=False)
        return [shelf.stored.taken(places, width, layer) for shelf, places, width in parts]

    @torch.inference_mode()
    def write(
        self, texts: Sequence[Ids], known: Known, new: Sequence[Pair], starts: Sequence[int]
    ) -> None:
        """Writes the rest of each text, in ``new`` (N, H, Tq, D) from column ``starts[i]`` on."""
        at = {self._roots: Columns(), self._behind: Columns()}
        for i, (text, row, length) in enumerate(zip(texts, known.rows, known.lengths, strict=True)):
            at[self._shelf(row)].add(
                row.place, length - row.offset, i, starts[i], len(text) - length
            )
        with self._whole():
            for shelf, columns in at.items():
                shelf.write(columns, new)
        for row, text, length in zip(known.rows, texts, known.lengths, strict=True):
            if len(text) > length:
                row.text = text
            self._names.give(text, row)

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
        if not computed.parents:
            return
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
        found = self._names.longest(text)
        if found is None:
            return _Found()
        row, length = found
        return _Found(row, length, self._piece(text[:length], text[length:]))

    def _piece(self, parent: Ids, rest: Ids) -> _Piece | None:
        """The longest piece behind a text that begins as ``rest`` does."""
        there = self._pieces.get(parent, ())
        for count in range(len(rest), 0, -1) if there else ():
            for one in there:
                start = one.starts.get(rest[:count])
                if start is not None:
                    return _Piece(one.computed, one.row, start, count)
        return None

    def _in_place(self, texts: Sequence[Ids], found: Sequence[_Found]) -> dict[int, Row]:
        """The row of each text that needs no new one.

        It stands in one wholly, or goes on from the end of one: the first of those that go on from
        a row behind a root, and the only one that goes on from a root, which stays short.
        """
        rows: dict[int, Row] = {}
        going: dict[Row, list[int]] = {}
        for i, (text, one) in enumerate(zip(texts, found, strict=True)):
            if one.row is None:
                continue
            if one.piece is None and one.length == len(text):
                rows[i] = one.row
            elif one.length == len(one.row.text):
                going.setdefault(one.row, []).append(i)
        for row, (first, *others) in going.items():
            if row.root is not None or not (others or row.behind):
                rows[first] = row
        return rows

    def _fork(self, source: Row, target: Row, text: Ids) -> tuple[Row, Row, int]:
        """Row ``target`` begins with ``text``, as ``source`` does; what is to be copied for it."""
        root, offset = source.root, source.offset
        if root is None:
            root, offset = source, len(text)
        root.behind.add(target)
        target.text, target.root, target.offset = text, root, offset
        return source, target, len(text) - offset

    def _shelf(self, row: Row) -> Shelf:
        return self._roots if row.root is None else self._behind

    def _free(self, shelf: Shelf, held: Container[Row]) -> Row:
        """A row that holds nothing."""
        row = shelf.free(held)
        self._forget_row(row)
        return row

    def _forget_row(self, row: Row) -> None:
        for other in list(row.behind):
            self._forget_row(other)
            self._behind.waste(other)
        self._names.forget(row)
        row.clear()

    def _make_room(self, texts: Sequence[Ids], rows: Sequence[Row], held: Container[Row]) -> None:
        """So that each text can be written wholly to its row."""
        for shelf in (self._roots, self._behind):
            own = [i for i, row in enumerate(rows) if self._shelf(row) is shelf]
            longest = max((len(texts[i]) - rows[i].offset for i in own), default=0)
            for row in shelf.fit(held, longest, self._roots.stored.layers) if own else ():
                self._forget_row(row)

    def _join(self, texts: Sequence[Ids], rows: Sequence[Row], found: Sequence[_Found]) -> None:
        """Copies pieces behind their texts, the first ones of ``texts``."""
        groups: dict[tuple[int, Shelf], tuple[_Computed, Columns]] = {}
        for row, one in zip(rows, found, strict=True):
            if (piece := one.piece) is not None:
                key = id(piece.computed), self._shelf(row)
                _, at = groups.setdefault(key, (piece.computed, Columns()))
                at.add(row.place, one.length - row.offset, piece.row, piece.start, piece.count)
        for (_, shelf), (computed, at) in groups.items():
            shelf.write(at, computed.layers)
        for text, row, one in zip(texts, rows, found, strict=True):
            if one.piece is not None:
                row.text = text[: one.length + one.piece.count]
                self._names.give(row.text, row)
