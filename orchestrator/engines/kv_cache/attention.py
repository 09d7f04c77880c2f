"""Attention over segmented keys and values, without copies for heads or for rows that share them.

transformers' own functions repeat keys and values for each query head of a group, a cache
concatenates old and new ones at every forward, and each sample of a prompt holds the prompt. On a
CPU these copies took three times as long as the model's matrix products. Here a layer's cache
returns its keys and values in *segments*, in order: the prompts, what a beam has so far, a sample's
new tokens. Rows of queries may share a row of a segment, which is stored once. Works for every
backbone of transformers that takes its attention from the AttentionInterface, and changes no
modelling file.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

NAME = "segmented"  # name in transformers' registry


class RowGroups:
    """Which of P segment rows each of N query rows attends to: ``index`` (N,) int64.

    ``largest`` is the most query rows of a segment row. ``in_order``: all segment rows have that
    many query rows, and these are consecutive.
    """

    def __init__(self, index: Tensor, segment_rows: int) -> None:
        counts = torch.bincount(index, minlength=segment_rows)
        self.index, self.segment_rows, self.largest = index, segment_rows, int(counts.max())
        # Query rows sorted by segment row, equally many of each: nothing to rearrange.
        in_order = torch.arange(segment_rows, device=index.device).repeat_interleave(self.largest)
        self.in_order = torch.equal(index, in_order)
        if not self.in_order:
            order = torch.argsort(index, stable=True)
            first = counts.cumsum(0) - counts
            rank = torch.arange(len(index), device=index.device) - first[index[order]]
            self._slot = index[order] * self.largest + rank
            self._order = order

    def gather(self, rows: Tensor) -> Tensor:
        """Group query rows (N, H, M, X) by segment row: (P, H, n * M, X), n = ``largest``."""
        grouped = rows
        if not self.in_order:
            grouped = rows.new_zeros((self.segment_rows * self.largest, *rows.shape[1:]))
            grouped[self._slot] = rows[self._order]
        by_segment_row: Tensor = grouped.unflatten(0, (self.segment_rows, self.largest))
        return by_segment_row.transpose(1, 2).flatten(2, 3)

    def scatter(self, grouped: Tensor) -> Tensor:
        """Invert ``gather``: (P, H, n * M, X) to (N, H, M, X)."""
        by_row: Tensor = grouped.unflatten(2, (self.largest, -1))
        ungrouped = by_row.transpose(1, 2).flatten(0, 1)
        if self.in_order:
            return ungrouped
        rows = ungrouped.new_empty((len(self.index), *ungrouped.shape[1:]))
        rows[self._order] = ungrouped[self._slot]
        return rows


@dataclass(frozen=True)
class Segment:
    """Keys (or values) ``states`` (P, H, T, D), of which each of N query rows sees one row.

    ``groups`` says which; None: query row i sees row i, N = P.
    """

    states: Tensor
    groups: RowGroups | None = None

    def logits(self, queries: Tensor) -> Tensor:
        """Return queries (N, H, M, D) times these keys: (N, H, M, T)."""
        keys = self.states.transpose(2, 3)
        if self.groups is None:
            return queries @ keys
        return self.groups.scatter(self.groups.gather(queries) @ keys)

    def weighted_sum(self, probabilities: Tensor) -> Tensor:
        """Return these values weighted by probabilities (N, H, M, T): (N, H, M, D)."""
        if self.groups is None:
            return probabilities @ self.states
        return self.groups.scatter(self.groups.gather(probabilities) @ self.states)

    def by_row(self) -> Tensor:
        """Return (N, H, T, D): a copy for each query row that shares a row."""
        return self.states if self.groups is None else self.states[self.groups.index]


@dataclass(frozen=True)
class Segments:
    """A layer's keys (or values), all of which each query row sees, in this order."""

    segments: tuple[Segment, ...]

    def concatenated(self) -> Tensor:
        """Return one tensor (N, H, T, D), for other attention functions."""
        return torch.cat([segment.by_row() for segment in self.segments], 2)


def enable_segments(model: PreTrainedModel) -> bool:
    """Make a model use segmented attention, if its architecture can; return whether it does."""
    plain = not any(hasattr(module, "sinks") for module in model.modules())
    if plain and model._supports_attention_backend:
        model.set_attn_implementation(NAME)
        return True
    return False


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor | Segments,
    value: Tensor | Segments,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Compute scaled dot-product attention, as transformers' own functions do.

    Args:
        module: the layer; says whether it trains.
        query: (N, H, Tq, D).
        key: (N, Hkv, Tk, D) or segments; H is a multiple of Hkv.
        value: as ``key``.
        attention_mask: additive, (N or 1, 1, Tq, Tk), or None where all is visible.
        dropout: dropout probability of the attention weights, in training.
        scaling: scale of the logits; None is D ** -0.5.
        softcap: soft cap of the logits (Gemma 2).
        kwargs: not used: contained in the mask (sliding windows), or for other functions.

    Returns:
        (N, Tq, H, D), and None instead of the probabilities.
    """
    count, heads, width, size = query.shape
    keys, values = _segments(key), _segments(value)
    # (N, Hkv, G * Tq, D): the heads of a group are further queries to the same keys.
    queries = query.reshape(count, keys[-1].states.shape[1], -1, size)
    queries = queries * (size**-0.5 if scaling is None else scaling)
    logits = torch.cat([segment.logits(queries) for segment in keys], -1)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if attention_mask is not None:
        logits.unflatten(2, (-1, width)).add_(attention_mask[:, :, None])  # (N, Hkv, G, Tq, Tk)
    wide = torch.promote_types(logits.dtype, torch.float32)
    probabilities = torch.softmax(logits, dim=-1, dtype=wide).to(query.dtype)
    if module.training:
        probabilities = nn.functional.dropout(probabilities, dropout)
    by_segment = probabilities.split([segment.states.shape[2] for segment in values], -1)
    sums = [segment.weighted_sum(p) for segment, p in zip(values, by_segment, strict=True)]
    output = functools.reduce(torch.add, sums).reshape(count, heads, width, -1)
    return output.transpose(1, 2).contiguous(), None


def _segments(states: Tensor | Segments) -> tuple[Segment, ...]:
    return states.segments if isinstance(states, Segments) else (Segment(states),)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, eager_mask)
