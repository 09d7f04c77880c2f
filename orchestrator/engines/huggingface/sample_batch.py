"""The batch of samples in progress, which rows join and leave at any step (continuous batching).

Keys and values are written column by column; a row that joins late starts at a later column, and
a mask hides the earlier ones. A stopped row leaves its slot to the next sample that joins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.engines.huggingface.draws import ActiveSample
from orchestrator.engines.kv_cache.cached_forward import CachedForward
from orchestrator.engines.kv_cache.prefix_match import PrefixMatches
from orchestrator.engines.kv_cache.row_storage import LayerKV
from orchestrator.engines.kv_cache.sample_cache import SampleLayer, sample_cache
from orchestrator.rewards.masks import additive_mask
from orchestrator.rewards.packed import PADDING, TRUNK, Ids, Tokens, joined

COMPACT_BELOW = 0.7  # share of live slots below which the others are dropped
STALE_COLUMNS = 64  # columns before the first one of any live slot at which they are dropped


@dataclass
class Slot:
    """A row of the batch: a sample after ``context``, its new tokens from column ``start`` on."""

    sample: ActiveSample
    context: Ids
    start: int
    cached: bool = False  # whether its states are in the prefix cache, or need not be

    @property
    def live(self) -> bool:
        """Whether the sample has not stopped."""
        return self.sample.stop is None


class SampleBatch:
    """Samples in progress, each after a context in the prefix cache of ``forward``.

    Args:
        model: model of ``forward``.
        forward: its prefix cache holds the contexts and receives the samples' states.
        device: device of the model.
    """

    def __init__(self, model: PreTrainedModel, forward: CachedForward, device: str) -> None:
        self._model, self._cached, self._device = model, forward, device
        self.clear()

    def clear(self) -> None:
        """Drop all samples."""
        self.slots: list[Slot] = []
        self._count = 0  # columns
        self._tokens = torch.empty(0, dtype=torch.int64, device=self._device)  # the last, (N,)
        self._layers: list[SampleLayer] = []
        self._context_index: dict[Ids, int] = {}  # index of each context in ``_matches``
        self._matches: PrefixMatches | None = None

    @property
    def live(self) -> int:
        """Number of samples that have not stopped."""
        return sum(slot.live for slot in self.slots)

    def join(self, samples: Sequence[tuple[Ids, ActiveSample]], tokens: Tensor) -> None:
        """Add samples after their contexts, with their first tokens (N,)."""
        stopped = [i for i, slot in enumerate(self.slots) if not slot.live]
        if len(stopped) == len(self.slots):
            self.cache_states(stopped)
            self.clear()
            stopped = []
        indices = stopped[: len(samples)]
        self.cache_states(indices)
        more = len(samples) - len(indices)
        indices += range(len(self.slots), len(self.slots) + more)
        self._tokens = torch.cat([self._tokens, self._tokens.new_zeros(more)])
        for i, (context, sample) in zip(indices, samples, strict=True):
            self.slots[i : i + 1] = [Slot(sample, context, self._count)]
        self._tokens[torch.tensor(indices, device=self._device)] = tokens
        self._compact()
        self._load_contexts()

    def forward(self) -> Tensor:
        """Return logits (N, V) after the last tokens, stopped rows too. Call ``advance`` next."""
        assert self._matches is not None
        starts = torch.tensor([slot.start for slot in self.slots], device=self._device)
        lengths = torch.tensor(self._matches.cached_lengths, device=self._device)[self._index]
        logits: Tensor = self._model(
            input_ids=self._tokens[:, None],
            attention_mask=self._mask(lengths, starts),
            position_ids=(lengths + self._count - starts)[:, None],
            past_key_values=sample_cache(self._layers),
            use_cache=True,
        ).logits[:, -1]
        self._count += 1
        return logits

    def advance(self, tokens: Tensor) -> None:
        """Set the next token (N,) of each row; stopped rows may be dropped."""
        self._tokens = tokens
        if self._compact():
            self._regroup()

    def cache_states(self, indices: Sequence[int]) -> None:
        """Add the keys and values of slots that may be continued to the prefix cache."""
        chosen = []
        for i in indices:
            slot = self.slots[i]
            if not slot.cached and slot.sample.stop in ("length", "entropy", "stop"):
                chosen.append(i)
            slot.cached = True
        if not chosen or not self._layers:
            return
        slots = [self.slots[i] for i in chosen]
        branches = [
            [(tuple(slot.sample.tokens[: self._count - slot.start]), slot.start)] for slot in slots
        ]
        rows = torch.tensor(chosen, device=self._device)
        new: list[LayerKV] = []
        for layer in self._layers:
            keys, values = layer.new_states
            new.append((keys[rows], values[rows]))
        self._cached.cache.add_branches([slot.context for slot in slots], branches, new)

    def _compact(self) -> bool:
        """Drop slots and columns that no live sample needs, where it is worth a copy."""
        live = [i for i, slot in enumerate(self.slots) if slot.live]
        first = min((self.slots[i].start for i in live), default=0)
        dense = len(live) >= COMPACT_BELOW * len(self.slots)
        if not live or (dense and first < STALE_COLUMNS):
            return False
        stopped = [i for i, slot in enumerate(self.slots) if not slot.live]
        self.cache_states(stopped)
        rows = torch.tensor(live, device=self._device)
        for layer in self._layers:
            layer.select(rows, first)
        self._count -= first
        self._tokens = self._tokens[rows]
        self.slots = [self.slots[i] for i in live]
        for slot in self.slots:
            slot.start -= first
        return True

    def _load_contexts(self) -> None:
        """Load the contexts of live rows from the prefix cache; compute evicted ones again."""
        contexts = list(dict.fromkeys(slot.context for slot in self.slots if slot.live))
        self._context_index = {context: i for i, context in enumerate(contexts)}
        self._cached.run(contexts, [()] * len(contexts), [False] * len(contexts))
        cache = self._cached.cache
        self._matches = cache.match(contexts)
        self._context_tokens = self._matches.tokens().to(self._device)
        if not self._layers:
            self._layers = [SampleLayer(self._cached.segmented) for _ in range(cache.layers)]
        for number, layer in enumerate(self._layers):
            layer.prefixes = cache.gather(self._matches, number)
        self._regroup()

    def _regroup(self) -> None:
        """Set the context of each row in all layers."""
        assert self._matches is not None
        # The context of a stopped row is arbitrary: its logits are not used.
        index = [self._context_index[slot.context] if slot.live else 0 for slot in self.slots]
        self._index = torch.tensor(index, device=self._device)
        groups = self._matches.groups(self._index, self._device)
        for layer in self._layers:
            layer.set_groups(groups, len(self.slots))

    def _mask(self, lengths: Tensor, starts: Tensor) -> Tensor | dict[str, Tensor]:
        """Return the additive mask of the tokens of column ``count``."""
        columns = torch.arange(self._count + 1, device=self._device) - starts[:, None]
        position = lengths[:, None] + columns
        branch = torch.where(columns < 0, PADDING, TRUNK)
        new = Tokens(position, position, position + 1, branch)
        last = torch.full_like(starts, self._count)[:, None]
        keys = joined(self._context_tokens.rows(self._index), new)
        return additive_mask(self._model, new.at(last), keys)
