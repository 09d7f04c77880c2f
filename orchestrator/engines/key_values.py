"""Keys and values of texts that a causal model has read, kept for the texts that go on from them.

A row of the store holds one text. A text that goes on from a row's whole content is written behind
it, in place; one that forks from it gets a row of its own. *Pieces* are candidates (chunks, single
tokens) that were computed behind a text: the one that is chosen is copied behind its text when it
is asked for, the others are forgotten with the next ones. What has no room any longer is forgotten
too, and computed again when it is asked for: the store never decides a result.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.rewards.packed import Ids

MEMORY_MIB = 256  # of rows, and as much again of pieces
STEP = 64  # by how many tokens rows grow
LEAST_ROWS = 16
Pair = tuple[Tensor, Tensor]  # a layer's keys and values, (N, H, T, D) each


@dataclass(frozen=True)
class Known:
    """N texts: text i stands in row ``rows[i]`` of the store, up to ``lengths[i]`` tokens."""

    rows: list[int]
    lengths: list[int]


@dataclass(eq=False)
class _Computed:
    """What one forward computed: layers of (N, H, Tq, D), and the pieces that stand in it."""

    layers: Sequence[Pair]
    bytes: int
    texts: list[Ids]


@dataclass(frozen=True)
class _Piece:
    """The end of ``text`` behind ``parent``: columns from ``start`` on of a row of ``computed``."""

    text: Ids
    parent: Ids
    computed: _Computed
    row: int
    start: int

    @property
    def count(self) -> int:
        return len(self.text) - len(self.parent)


class KeyValues:
    """The store of one model.

    Args:
        memory_mib: of its rows, and of its pieces; a batch that needs more gets more.
    """

    def __init__(self, memory_mib: int = MEMORY_MIB) -> None:
        self._memory = memory_mib * 2**20
        self._layers: list[Pair] = []  # (R, H, C, D)
        self._texts: list[Ids] = []  # by row: what it holds
        self._names: dict[Ids, int] = {}  # a text, and the row that begins with it
        self._names_of: list[list[Ids]] = []
        self._used: OrderedDict[int, None] = OrderedDict()  # rows, the latest used last
        self._pieces: dict[Ids, _Piece] = {}
        self._computed: OrderedDict[int, _Computed] = OrderedDict()
        self._piece_bytes = 0
        self._lengths: Counter[int] = Counter()  # of names and pieces

    @property
    def layers(self) -> int:
        """How many layers it holds; 0 before anything is kept."""
        return len(self._layers)

    def known(self, texts: Sequence[Ids]) -> Known:
        """Gives each of N different texts a row, with as much of it as was read before.

        Rows that the texts are not wholly in are theirs alone, to be written behind.
        """
        found = [self._find(text) for text in texts]
        rows: list[int | None] = [None] * len(texts)
        held = {row for row, _, _ in found if row is not None}
        own: set[int] = set()
        for i, (row, length, piece) in enumerate(found):
            whole = piece is None and length == len(texts[i])
            at_end = row is not None and length == len(self._texts[row]) and row not in own
            if row is not None and (whole or at_end):
                rows[i] = row
                own |= set() if whole else {row}
        copies: list[tuple[int, int, int]] = []
        for i, (row, length, _) in enumerate(found):
            if rows[i] is None:
                rows[i] = new = self._free_row(held)
                held.add(new)
                if row is not None and length:
                    copies.append((row, new, length))
                    self._texts[new] = texts[i][:length]
        placed = [row for row in rows if row is not None]
        if self._layers:
            self._make_room(0, self._layers)
        self._copy(copies)
        self._join(placed, found)
        for row in placed:
            self._used.move_to_end(row)
        lengths = [n + (piece.count if piece else 0) for _, n, piece in found]
        return Known(placed, lengths)

    def taken(self, known: Known, lengths: Sequence[int], layer: int) -> Pair:
        """A layer's keys and values (N, H, T, D) of the first ``lengths``, T the most of them.

        What stands behind a shorter one means nothing, and is for a mask to hide.
        """
        width = max(lengths)
        keys, values = self._layers[layer]
        index = torch.tensor(known.rows, device=keys.device)
        return (
            keys[:, :, :width].index_select(0, index),
            values[:, :, :width].index_select(0, index),
        )

    def write(
        self, texts: Sequence[Ids], known: Known, new: Sequence[Pair], starts: Sequence[int]
    ) -> None:
        """Writes the rest of each text, in ``new`` (N, H, Tq, D) from column ``starts[i]`` on."""
        wanted = [len(text) - n for text, n in zip(texts, known.lengths, strict=True)]
        at = _Columns()
        for i, count in enumerate(wanted):
            at.add(known.rows[i], known.lengths[i], i, starts[i], count)
        self._make_room(max(map(len, texts)), new)
        at.copy(new, self._layers)
        for row, text, count in zip(known.rows, texts, wanted, strict=True):
            if count > 0:
                self._texts[row] = text
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
            for ids, start in own:
                text = parent + ids
                if ids and text not in self._pieces and text not in self._names:
                    self._pieces[text] = _Piece(text, parent, computed, row, start)
                    self._lengths[len(text)] += 1
                    computed.texts.append(text)
        self._computed[id(computed)] = computed
        self._piece_bytes += computed.bytes
        while len(self._computed) > 1 and self._piece_bytes > self._memory:
            _, oldest = self._computed.popitem(last=False)
            self._piece_bytes -= oldest.bytes
            for text in oldest.texts:
                self._forget_piece(text)

    def _find(self, text: Ids) -> tuple[int | None, int, _Piece | None]:
        """The row that holds the most of a text, how much, and a piece that goes on from there."""
        for length in sorted((n for n in self._lengths if n <= len(text)), reverse=True):
            head = text[:length]
            if head in self._names:
                return self._names[head], length, None
            piece = self._pieces.get(head)
            if piece is not None and piece.parent in self._names:
                return self._names[piece.parent], len(piece.parent), piece
        return None, 0, None

    def _free_row(self, held: set[int]) -> int:
        """A row that holds nothing, made if there is memory, else of the text longest not used."""
        size = sum(part[0].nbytes for pair in self._layers for part in pair) if self._texts else 0
        if size * (len(self._texts) + 1) > self._memory or not self._used:
            for row in self._used:
                if row not in held and len(self._texts) >= LEAST_ROWS:
                    self._forget_row(row)
                    return row
        self._texts.append(())
        self._names_of.append([])
        self._used[len(self._texts) - 1] = None
        return len(self._texts) - 1

    def _forget_row(self, row: int) -> None:
        for text in self._names_of[row]:
            del self._names[text]
            self._count_down(len(text))
        self._texts[row], self._names_of[row] = (), []

    def _forget_piece(self, text: Ids) -> None:
        if self._pieces.pop(text, None) is not None:
            self._count_down(len(text))

    def _count_down(self, length: int) -> None:
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]

    def _name(self, text: Ids, row: int) -> None:
        if text not in self._names:
            self._names[text] = row
            self._names_of[row].append(text)
            self._lengths[len(text)] += 1

    def _copy(self, copies: Sequence[tuple[int, int, int]]) -> None:
        """Beginnings of rows: (from, to, tokens)."""
        if not copies:
            return
        width = max(length for _, _, length in copies)
        device = self._layers[0][0].device
        source = torch.tensor([row for row, _, _ in copies], device=device)
        target = torch.tensor([row for _, row, _ in copies], device=device)
        for pair in self._layers:
            for part in pair:
                some = part[:, :, :width]
                some.index_copy_(0, target, some.index_select(0, source))

    def _join(
        self, rows: Sequence[int], found: Sequence[tuple[int | None, int, _Piece | None]]
    ) -> None:
        """Copies pieces behind their texts."""
        groups: dict[int, tuple[_Computed, _Columns]] = {}
        longest = 0
        for row, (_, length, piece) in zip(rows, found, strict=True):
            if piece is not None:
                _, at = groups.setdefault(id(piece.computed), (piece.computed, _Columns()))
                at.add(row, length, piece.row, piece.start, piece.count)
                longest = max(longest, length + piece.count)
        if groups:
            self._make_room(longest, self._layers)
        for computed, at in groups.values():
            at.copy(computed.layers, self._layers)
        for row, (_, _, piece) in zip(rows, found, strict=True):
            if piece is not None:
                self._texts[row] = piece.text
                self._forget_piece(piece.text)
                self._name(piece.text, row)

    def _make_room(self, tokens: int, like: Sequence[Pair]) -> None:
        """Rows and columns for what is to be written."""
        rows, columns = len(self._texts), -(-tokens // STEP) * STEP
        if self._layers:
            had_rows, _, had_columns, _ = self._layers[0][0].shape
            if had_rows >= rows and had_columns >= columns:
                return
            rows = had_rows if had_rows >= rows else max(rows, 2 * had_rows)
            columns = max(columns, had_columns)
        self._layers = [
            tuple(  # type: ignore[misc]
                _enlarged(part, old, rows, columns)
                for part, old in zip(
                    pair, self._layers[i] if self._layers else (None, None), strict=True
                )
            )
            for i, pair in enumerate(like)
        ]


class _Columns:
    """Tokens to copy from some rows and columns to others, one by one."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def add(self, row: int, column: int, source: int, start: int, count: int) -> None:
        """``count`` tokens of row ``source`` from ``start`` on, to ``row`` from ``column`` on."""
        if count > 0:
            places = torch.arange(count)
            rows = torch.tensor([[row], [source]]).expand(2, count)
            self._parts.append(torch.cat([rows, torch.stack([column + places, start + places])]))

    def copy(self, source: Sequence[Pair], target: Sequence[Pair]) -> None:
        """Copies them in all layers."""
        if not self._parts:
            return
        whole = torch.cat(self._parts, 1).to(source[0][0].device)
        row, origin, column, start = whole.unbind()
        for old, new in zip(source, target, strict=True):
            for here, there in zip(old, new, strict=True):
                there[row, :, column] = here[origin, :, start]


def _enlarged(part: Tensor, old: Tensor | None, rows: int, columns: int) -> Tensor:
    found = part.new_zeros((rows, part.shape[1], columns, part.shape[3]))
    if old is not None:
        found[: old.shape[0], :, : old.shape[2]] = old
    return found
