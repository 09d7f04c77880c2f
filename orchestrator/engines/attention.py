"""Attention that copies no keys and values: not for heads that share them, nor for rows.

transformers' own functions repeat keys and values for each query head of a group, a cache joins old
and new ones in a new tensor at every forward, and samples of one prompt each hold the prompt. On a
CPU these copies took three times as long as the model's products. Here a layer's cache gives its
keys and values in two parts, *before* and *own*, of which several rows of queries may share the
first; both stay where they are. Works for every backbone of transformers that takes its attention
from the AttentionInterface, and changes no modelling file.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

NAME = "shared_beginnings"  # in transformers' registry


class Groups:
    """Which of P beginnings each of N rows goes on from: ``index`` (N,) int64."""

    def __init__(self, index: Tensor, beginnings: int) -> None:
        counts = torch.bincount(index, minlength=beginnings)
        self.index, self.beginnings, self.most = index, beginnings, int(counts.max())
        # Rows by beginning, as many each, one after the other: nothing to rearrange.
        in_order = torch.arange(beginnings, device=index.device).repeat_interleave(self.most)
        self._even = torch.equal(index, in_order)
        if not self._even:
            order = torch.argsort(index, stable=True)
            first = counts.cumsum(0) - counts
            slot = torch.arange(len(index), device=index.device) - first[index[order]]
            self._place = index[order] * self.most + slot
            self._order = order

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows (N, H, M, X) by beginning: (P, H, n * M, X), n the most rows of any beginning."""
        found = rows
        if not self._even:
            found = rows.new_zeros((self.beginnings * self.most, *rows.shape[1:]))
            found[self._place] = rows[self._order]
        by_beginning: Tensor = found.unflatten(0, (self.beginnings, self.most))
        return by_beginning.transpose(1, 2).flatten(2, 3)

    def scattered(self, found: Tensor) -> Tensor:
        """The way back: (P, H, n * M, X) to (N, H, M, X)."""
        by_row: Tensor = found.unflatten(2, (self.most, -1))
        apart = by_row.transpose(1, 2).flatten(0, 1)
        if self._even:
            return apart
        rows = apart.new_empty((len(self.index), *apart.shape[1:]))
        rows[self._order] = apart[self._place]
        return rows


@dataclass(frozen=True)
class Parts:
    """A layer's keys (or values) in two parts, both seen in this order.

    ``before`` is (P, H, T, D); ``own`` (N, H, t, D). ``groups`` tells which beginning each of N
    rows has; None: each its own.
    """

    before: Tensor
    own: Tensor
    groups: Groups | None = None

    def whole(self) -> Tensor:
        """Both in one tensor (N, H, T + t, D), for attention functions of other kinds."""
        before = self.before if self.groups is None else self.before[self.groups.index]
        return torch.cat([before, self.own], 2)


def takes_parts(model: PreTrainedModel) -> bool:
    """Makes a model attend in parts, if its architecture can; else its caches join them."""
    plain = not any(hasattr(module, "sinks") for module in model.modules())
    if plain and model._supports_attention_backend:
        model.set_attn_implementation(NAME)
        return True
    return False


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor | Parts,
    value: Tensor | Parts,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention, as transformers' own functions.

    Args:
        module: the layer; says whether it trains.
        query: (N, H, Tq, D).
        key: (N, Hkv, Tk, D) or in parts; H is a multiple of Hkv.
        value: like ``key``.
        attention_mask: additive, (N or 1, 1, Tq, Tk), or None where all is seen.
        dropout: of the probabilities, in training.
        scaling: of the logits; None is D ** -0.5.
        softcap: of the logits (Gemma 2).
        kwargs: what a mask says already (sliding windows), or other functions need.

    Returns:
        (N, Tq, H, D), and None in place of the probabilities.
    """
    count, heads, width, size = query.shape
    own = key.own if isinstance(key, Parts) else key
    # (N, Hkv, G * Tq, D): the heads of a group are further queries to the same keys.
    queries = query.reshape(count, own.shape[1], -1, size)
    queries = queries * (size**-0.5 if scaling is None else scaling)
    logits = _products(queries, key)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if attention_mask is not None:
        by_head: Tensor = logits.unflatten(2, (-1, width))  # (N, Hkv, G, Tq, Tk)
        logits = (by_head + attention_mask[:, :, None]).flatten(2, 3)
    wide = torch.promote_types(logits.dtype, torch.float32)
    shares = torch.softmax(logits, dim=-1, dtype=wide).to(query.dtype)
    shares = nn.functional.dropout(shares, dropout, module.training)
    found = _sums(shares, value).reshape(count, heads, width, -1)
    return found.transpose(1, 2).contiguous(), None


def _products(queries: Tensor, keys: Tensor | Parts) -> Tensor:
    """Queries (N, Hkv, M, D) by keys: (N, Hkv, M, Tk)."""
    if not isinstance(keys, Parts):
        return queries @ keys.transpose(2, 3)
    groups = keys.groups
    if groups is None:
        before = queries @ keys.before.transpose(2, 3)
    else:
        before = groups.scattered(groups.gathered(queries) @ keys.before.transpose(2, 3))
    return torch.cat([before, queries @ keys.own.transpose(2, 3)], -1)


def _sums(shares: Tensor, values: Tensor | Parts) -> Tensor:
    """Values by shares (N, Hkv, M, Tk): (N, Hkv, M, D)."""
    first: Tensor
    second: Tensor
    if not isinstance(values, Parts):
        return shares @ values
    first, second = shares.split([values.before.shape[2], values.own.shape[2]], -1)
    groups = values.groups
    if groups is None:
        return first @ values.before + second @ values.own
    return groups.scattered(groups.gathered(first) @ values.before) + second @ values.own


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, eager_mask)
