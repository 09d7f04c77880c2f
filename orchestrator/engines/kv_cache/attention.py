"""Attention that copies keys and values neither for heads nor for rows that share them.

transformers' own functions repeat keys and values for each query head of a group, a cache joins old
and new ones in a new tensor at every forward, and samples of one prompt each hold the prompt. On a
CPU these copies took three times as long as the model's products. Here a layer's cache gives its
keys and values in *parts*, one behind the other: the prompts, what a beam has so far, a sample's
own. Several rows of queries may share a row of a part, which is there once for all. Works for
every backbone of transformers that takes its attention from the AttentionInterface, and changes no
modelling file.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

NAME = "shared_beginnings"  # in transformers' registry


class Groups:
    """Which of P beginnings each of N rows goes on from: ``index`` (N,) int64.

    ``most`` rows go on from the same one; ``in_order``: of each as many do, one after the other.
    """

    def __init__(self, index: Tensor, beginnings: int) -> None:
        counts = torch.bincount(index, minlength=beginnings)
        self.index, self.beginnings, self.most = index, beginnings, int(counts.max())
        # Rows by beginning, as many each, one after the other: nothing to rearrange.
        in_order = torch.arange(beginnings, device=index.device).repeat_interleave(self.most)
        self.in_order = torch.equal(index, in_order)
        if not self.in_order:
            order = torch.argsort(index, stable=True)
            first = counts.cumsum(0) - counts
            slot = torch.arange(len(index), device=index.device) - first[index[order]]
            self._place = index[order] * self.most + slot
            self._order = order

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows (N, H, M, X) by beginning: (P, H, n * M, X), n the most rows of any beginning."""
        found = rows
        if not self.in_order:
            found = rows.new_zeros((self.beginnings * self.most, *rows.shape[1:]))
            found[self._place] = rows[self._order]
        by_beginning: Tensor = found.unflatten(0, (self.beginnings, self.most))
        return by_beginning.transpose(1, 2).flatten(2, 3)

    def scattered(self, found: Tensor) -> Tensor:
        """The way back: (P, H, n * M, X) to (N, H, M, X)."""
        by_row: Tensor = found.unflatten(2, (self.most, -1))
        apart = by_row.transpose(1, 2).flatten(0, 1)
        if self.in_order:
            return apart
        rows = apart.new_empty((len(self.index), *apart.shape[1:]))
        rows[self._order] = apart[self._place]
        return rows


@dataclass(frozen=True)
class Part:
    """Keys (or values) ``states`` (P, H, T, D), of which each of N rows of queries sees one row.

    ``groups`` tells which; None: each its own, N = P.
    """

    states: Tensor
    groups: Groups | None = None

    def products(self, queries: Tensor) -> Tensor:
        """Queries (N, H, M, D) by these keys: (N, H, M, T)."""
        keys = self.states.transpose(2, 3)
        if self.groups is None:
            return queries @ keys
        return self.groups.scattered(self.groups.gathered(queries) @ keys)

    def sums(self, shares: Tensor) -> Tensor:
        """These values by shares (N, H, M, T): (N, H, M, D)."""
        if self.groups is None:
            return shares @ self.states
        return self.groups.scattered(self.groups.gathered(shares) @ self.states)

    def by_row(self) -> Tensor:
        """(N, H, T, D): a copy for each row of queries that shares them."""
        return self.states if self.groups is None else self.states[self.groups.index]


@dataclass(frozen=True)
class Parts:
    """A layer's keys (or values), all of which each row of queries sees, in this order."""

    parts: tuple[Part, ...]

    def whole(self) -> Tensor:
        """All in one tensor (N, H, T, D), for attention functions of other kinds."""
        return torch.cat([part.by_row() for part in self.parts], 2)


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
    keys, values = _parts(key), _parts(value)
    # (N, Hkv, G * Tq, D): the heads of a group are further queries to the same keys.
    queries = query.reshape(count, keys[-1].states.shape[1], -1, size)
    queries = queries * (size**-0.5 if scaling is None else scaling)
    logits = torch.cat([part.products(queries) for part in keys], -1)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if attention_mask is not None:
        logits.unflatten(2, (-1, width)).add_(attention_mask[:, :, None])  # (N, Hkv, G, Tq, Tk)
    wide = torch.promote_types(logits.dtype, torch.float32)
    shares = torch.softmax(logits, dim=-1, dtype=wide).to(query.dtype)
    if module.training:
        shares = nn.functional.dropout(shares, dropout)
    apart = shares.split([part.states.shape[2] for part in values], -1)
    sums = [part.sums(own) for part, own in zip(values, apart, strict=True)]
    found = functools.reduce(torch.add, sums).reshape(count, heads, width, -1)
    return found.transpose(1, 2).contiguous(), None


def _parts(states: Tensor | Parts) -> tuple[Part, ...]:
    return states.parts if isinstance(states, Parts) else (Part(states),)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, eager_mask)
