"""Cached forwards of a causal model: sequences continue from their longest cached prefixes.

One forward computes the uncached tokens of each sequence (the *trunk*) and of its *branches*
(candidates with closing tokens). A branch attends to the trunk and to itself. Token-level search
needs no forward for each candidate.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from orchestrator.engines.kv_cache.attention import RowGroups, Segments, enable_segments
from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB, PrefixCache
from orchestrator.engines.kv_cache.prefix_match import PrefixMatches
from orchestrator.engines.kv_cache.row_storage import LayerKV
from orchestrator.engines.kv_cache.sample_cache import concatenated
from orchestrator.rewards.masks import additive_mask
from orchestrator.rewards.packed import PADDING, TRUNK, Ids, Tokens, joined

TOKENS_PER_FORWARD = 8_192  # queries of a forward, padding included
# Up to this much padding is cheaper than another forward; calls have a larger overhead on GPUs.
MAX_PADDING_CPU, MAX_PADDING_GPU = 128, 1_024
Branches = Sequence[tuple[Ids, Ids]]  # candidates, each with closing tokens that are not cached


@dataclass(frozen=True)
class SequenceOutput:
    """Outputs of one sequence.

    Attributes:
        last: (D,) at its last token, if wanted.
        branch_ends: (K, D) at the last tokens of its branches; (0,) if nothing was computed for the
            sequence, since it is cached and has no branches.
        tokens_computed: tokens of the forward, padding excluded.
    """

    last: Tensor | None
    branch_ends: Tensor
    tokens_computed: int


class CachedForward:
    """One model with its prefix cache.

    Args:
        model: in evaluation mode, on its device; its attention must be determined by the attention
            mask alone (no sliding window etc.).
        forward: returns the model's output (N, Tq, D), or (N, 1, D) of the last token where there
            are no branches; takes the model's keyword arguments.
        pad_id: any token id; padding is masked.
        cache_mib: memory (MiB) of the KV cache.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        forward: Callable[..., Tensor],
        pad_id: int,
        cache_mib: float = MEMORY_MIB,
    ) -> None:
        self._model, self._forward_fn, self._pad_id = model, forward, pad_id
        self._device = model.device  # each access would iterate over all weights
        self._max_padding = MAX_PADDING_CPU if self._device.type == "cpu" else MAX_PADDING_GPU
        self._num_layers = model.config.get_text_config().num_hidden_layers
        self.segmented = enable_segments(model)
        self.cache = PrefixCache(cache_mib)

    def clear_cache(self) -> None:
        """Evict all cached keys and values."""
        self.cache.clear()

    @torch.inference_mode()
    def run(
        self, sequences: Sequence[Ids], branches: Sequence[Branches], last: Sequence[bool]
    ) -> list[SequenceOutput]:
        """Compute N different nonempty sequences and their branches; output i is of sequence i.

        Args:
            sequences: token ids.
            branches: branches of each sequence.
            last: whether the output at the last token of each sequence is wanted.
        """
        results: dict[int, SequenceOutput] = {}
        matches = self.cache.match(sequences)
        for i, (sequence, row_branches) in enumerate(zip(sequences, branches, strict=True)):
            if matches.cached_lengths[i] == len(sequence) and not row_branches and not last[i]:
                results[i] = SequenceOutput(None, torch.empty(0), 0)
        for batch in _batches(sequences, matches, branches, set(results), self._max_padding):
            outputs = self._forward(
                [sequences[i] for i in batch],
                matches.select(batch),
                [branches[i] for i in batch],
                [last[i] for i in batch],
            )
            results.update(zip(batch, outputs, strict=True))
        return [results[i] for i in range(len(sequences))]

    def _forward(
        self,
        sequences: list[Ids],
        matches: PrefixMatches,
        branches: list[Branches],
        last: list[bool],
    ) -> list[SequenceOutput]:
        # If the last output is requested, the last token is computed even if it is cached.
        reused = [
            min(n, len(sequence) - 1) if wanted else n
            for sequence, n, wanted in zip(sequences, matches.cached_lengths, last, strict=True)
        ]
        width = max(len(sequence) - n for sequence, n in zip(sequences, reused, strict=True))
        device = self._device
        queries = _queries(sequences, reused, branches, width, self._pad_id).to(device)
        prefixes = matches.truncated(reused)
        keys = joined(prefixes.tokens().to(device), queries)
        cache, groups = DynamicCache(), prefixes.groups(None, device)
        layers = [
            _CachedLayer(self.cache, prefixes, groups, number, self.segmented)
            for number in range(self._num_layers)
        ]
        cache.layers = layers
        output = self._forward_fn(
            input_ids=queries.ids,
            attention_mask=additive_mask(self._model, queries, keys),
            position_ids=queries.position,
            past_key_values=cache,
            use_cache=True,
        )
        new = [layer.new for layer in layers]
        starts = [
            width - (len(sequence) - n)
            for sequence, n in zip(sequences, matches.cached_lengths, strict=True)
        ]
        self.cache.write(sequences, matches, new, starts)
        total = queries.shape[1]
        results: list[SequenceOutput] = []
        branch_columns: list[list[tuple[Ids, int]]] = []
        for i, (sequence, row_branches) in enumerate(zip(sequences, branches, strict=True)):
            ends, column = [], width
            branch_columns.append([])
            for candidate, closing in row_branches:
                branch_columns[-1].append((candidate, column))
                column += len(candidate) + len(closing)
                ends.append(column - 1 - total)
            branch_ends = output[i, torch.tensor(ends, dtype=torch.int64, device=device)]
            last_output = output[i, width - 1 - total] if last[i] else None
            computed = len(sequence) - reused[i] + column - width
            results.append(SequenceOutput(last_output, branch_ends, computed))
        if any(map(len, branches)):
            self.cache.add_branches(sequences, branch_columns, new)
        return results


class _CachedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of a cached forward; ``new`` are the keys and values it computed."""

    new: LayerKV

    def __init__(
        self,
        cache: PrefixCache,
        matches: PrefixMatches,
        groups: Sequence[RowGroups | None],
        number: int,
        segmented: bool,
    ) -> None:
        super().__init__()
        self._cache, self._matches, self._groups = cache, matches, groups
        self._number, self._segmented = number, segmented

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor | Segments, Tensor | Segments]:
        """Return cached and new keys and values, (N, H, T + Tq, D) each."""
        self.new = key_states, value_states
        if not max(self._matches.cached_lengths):
            return self.new
        cached = self._cache.gather(self._matches, self._number)
        return concatenated(cached, self._groups, self.new, self._segmented)

    def get_seq_length(self) -> int:
        """T, the cached columns."""
        return sum(self._matches.widths)


def _queries(
    sequences: Sequence[Ids],
    reused: Sequence[int],
    branches: Sequence[Branches],
    width: int,
    pad_id: int,
) -> Tokens:
    """Return the new tokens, aligned on the right in ``width`` columns, then the branches."""
    branch_width = max(sum(len(a) + len(b) for a, b in row) for row in branches)
    fields = np.empty((4, len(sequences), width + branch_width), np.int64)
    fields[:] = np.array([pad_id, 0, 0, PADDING])[:, None, None]
    ids, position, reach, branch = fields  # as those of Tokens
    for i, (sequence, n, row) in enumerate(zip(sequences, reused, branches, strict=True)):
        first = width - (len(sequence) - n)
        ids[i, first:width] = sequence[n:]
        position[i, first:width] = np.arange(n, len(sequence))
        reach[i, first:width] = position[i, first:width] + 1
        branch[i, first:width] = TRUNK
        tokens = [a + b for a, b in row]
        end = width + sum(map(len, tokens))
        ids[i, width:end] = [token for branch_ids in tokens for token in branch_ids]
        position[i, width:end] = [
            len(sequence) + j for branch_ids in tokens for j in range(len(branch_ids))
        ]
        reach[i, width:end] = len(sequence)
        branch[i, width:end] = [k for k, branch_ids in enumerate(tokens) for _ in branch_ids]
    return Tokens(*torch.from_numpy(fields).unbind(0))


def _batches(
    sequences: Sequence[Ids],
    matches: PrefixMatches,
    branches: Sequence[Branches],
    skipped: Container[int],
    max_padding: int,
) -> list[list[int]]:
    """Return batches of sequence indices with little padding, sorted by new and branch tokens.

    Long sequences do not delay short ones. A sequence with twice the branches (two equal beams)
    gets its own batch if it would add too much padding.
    """
    new = [len(sequence) - n for sequence, n in zip(sequences, matches.cached_lengths, strict=True)]
    branch_tokens = [sum(len(a) + len(b) for a, b in row) for row in branches]
    batches: list[list[int]] = []
    filled, widest = 0, 0  # tokens of the last batch, and of its widest branches
    indices = (i for i in range(len(sequences)) if i not in skipped)
    for i in sorted(indices, key=lambda i: (new[i], branch_tokens[i])):
        filled, widest = filled + new[i] + branch_tokens[i], max(widest, branch_tokens[i])
        padded = (new[i] + widest) * (len(batches[-1]) + 1) if batches else 0
        if not batches or padded > TOKENS_PER_FORWARD or padded - filled > max_padding:
            batches.append([])
            filled, widest = new[i] + branch_tokens[i], branch_tokens[i]
        batches[-1].append(i)
    # Sequences of a parent are consecutive: attention then has nothing to rearrange.
    return [sorted(batch, key=lambda i: (matches.parents[i].index, i)) for batch in batches]
