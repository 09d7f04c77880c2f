"""Samples under way in one batch, which rows join and leave at any step (continuous batching).

Keys and values are written column by column; a row that joins late starts at a later column, and
a mask hides the earlier ones. A row that has stopped leaves its slot to the next one that joins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.engines.huggingface.draws import DrawnRow
from orchestrator.engines.kv_cache.cached_forward import Reader
from orchestrator.engines.kv_cache.prefix_match import Known
from orchestrator.engines.kv_cache.rows import Pair
from orchestrator.engines.kv_cache.sample_cache import SamplesLayer, samples_cache
from orchestrator.rewards.masks import additive_mask
from orchestrator.rewards.packed import PADDING, TRUNK, Ids, Tokens, joined

COMPACT_BELOW = 0.7  # share of slots under way at which the others are dropped
STALE_COLUMNS = 64  # columns before the first of any row under way at which they are dropped


@dataclass
class Slot:
    """A row of the batch: a sample behind ``text``, its own tokens from column ``start`` on."""

    row: DrawnRow
    text: Ids
    start: int
    kept: bool = False  # whether the store has what was computed of it

    @property
    def live(self) -> bool:
        """Whether it is under way."""
        return self.row.stop is None


class Batch:
    """Samples under way behind texts that ``reader`` has read.

    Args:
        model: of the reader.
        reader: its store gives what the samples go on from, and keeps what they have computed.
        device: of the model.
    """

    def __init__(self, model: PreTrainedModel, reader: Reader, device: str) -> None:
        self._model, self._reader, self._device = model, reader, device
        self.clear()

    def clear(self) -> None:
        """Drops all of them."""
        self.slots: list[Slot] = []
        self._count = 0  # columns
        self._tokens = torch.empty(0, dtype=torch.int64, device=self._device)  # the last, (N,)
        self._layers: list[SamplesLayer] = []
        self._place: dict[Ids, int] = {}  # of each text in ``known``
        self._known: Known | None = None

    @property
    def live(self) -> int:
        """How many are under way."""
        return sum(slot.live for slot in self.slots)

    def join(self, samples: Sequence[tuple[Ids, DrawnRow]], tokens: Tensor) -> None:
        """Further samples, each behind its text, with their first tokens (N,)."""
        dead = [i for i, slot in enumerate(self.slots) if not slot.live]
        if len(dead) == len(self.slots):
            self.keep(dead)
            self.clear()
            dead = []
        places = dead[: len(samples)]
        self.keep(places)
        more = len(samples) - len(places)
        places += range(len(self.slots), len(self.slots) + more)
        self._tokens = torch.cat([self._tokens, self._tokens.new_zeros(more)])
        for place, (text, row) in zip(places, samples, strict=True):
            self.slots[place : place + 1] = [Slot(row, text, self._count)]
        self._tokens[torch.tensor(places, device=self._device)] = tokens
        self._compact()
        self._begin()

    def forward(self) -> Tensor:
        """Logits (N, V) behind all tokens so far, of the stopped rows too; then ``went_on``."""
        assert self._known is not None
        starts = torch.tensor([slot.start for slot in self.slots], device=self._device)
        begun = torch.tensor(self._known.lengths, device=self._device)[self._index]
        logits: Tensor = self._model(
            input_ids=self._tokens[:, None],
            attention_mask=self._mask(begun, starts),
            position_ids=(begun + self._count - starts)[:, None],
            past_key_values=samples_cache(self._layers),
            use_cache=True,
        ).logits[:, -1]
        self._count += 1
        return logits

    def went_on(self, tokens: Tensor) -> None:
        """The next token (N,) of each row was drawn; what stopped may be dropped."""
        self._tokens = tokens
        if self._compact():
            self._regroup()

    def keep(self, places: Sequence[int]) -> None:
        """Saves the computed keys and values of rows that may be continued."""
        chosen = []
        for place in places:
            slot = self.slots[place]
            if not slot.kept and slot.row.stop in ("length", "entropy", "stop"):
                chosen.append(place)
            slot.kept = True
        if not chosen or not self._layers:
            return
        some = [self.slots[place] for place in chosen]
        pieces = [
            [(tuple(slot.row.tokens[: self._count - slot.start]), slot.start)] for slot in some
        ]
        at = torch.tensor(chosen, device=self._device)
        new: list[Pair] = []
        for layer in self._layers:
            keys, values = layer.own
            new.append((keys[at], values[at]))
        self._reader.store.remember([slot.text for slot in some], pieces, new)

    def _compact(self) -> bool:
        """Drops slots and columns that nothing under way needs, where it is worth a copy."""
        live = [i for i, slot in enumerate(self.slots) if slot.live]
        first = min((self.slots[i].start for i in live), default=0)
        many = len(live) >= COMPACT_BELOW * len(self.slots)
        if not live or (many and first < STALE_COLUMNS):
            return False
        dead = [i for i, slot in enumerate(self.slots) if not slot.live]
        self.keep(dead)
        kept = torch.tensor(live, device=self._device)
        for layer in self._layers:
            layer.take(kept, first)
        self._count -= first
        self._tokens = self._tokens[kept]
        self.slots = [self.slots[i] for i in live]
        for slot in self.slots:
            slot.start -= first
        return True

    def _begin(self) -> None:
        """Loads the prefixes of live rows from the store, and computes evicted ones again."""
        texts = list(dict.fromkeys(slot.text for slot in self.slots if slot.live))
        self._place = {text: i for i, text in enumerate(texts)}
        self._reader.read(texts, [()] * len(texts), [False] * len(texts))
        store = self._reader.store
        self._known = store.known(texts)
        self._begun = self._known.tokens().to(self._device)
        if not self._layers:
            self._layers = [SamplesLayer(self._reader.in_parts) for _ in range(store.layers)]
        for number, layer in enumerate(self._layers):
            layer.before = store.taken(self._known, number)
        self._regroup()

    def _regroup(self) -> None:
        """Tells which text each row goes on from."""
        assert self._known is not None
        # A stopped row sees anything: it is not looked at.
        index = [self._place[slot.text] if slot.live else 0 for slot in self.slots]
        self._index = torch.tensor(index, device=self._device)
        groups = self._known.groups(self._index, self._device)
        for layer in self._layers:
            layer.group(groups, len(self.slots))

    def _mask(self, begun: Tensor, starts: Tensor) -> Tensor | dict[str, Tensor]:
        """The additive mask of the tokens of column ``count``."""
        columns = torch.arange(self._count + 1, device=self._device) - starts[:, None]
        place = begun[:, None] + columns
        branch = torch.where(columns < 0, PADDING, TRUNK)
        own = Tokens(place, place, place + 1, branch)
        last = torch.full_like(starts, self._count)[:, None]
        return additive_mask(self._model, own.at(last), joined(self._begun.rows(self._index), own))
