"""A causal model that reads texts on from where they were read before.

Scores of candidates and logits of next tokens come from one forward over the new tokens alone:
each text's own, and its *tails* (candidates with what closes them), each of which sees the text and
itself. Design: token-level search needs no forward for each candidate.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from orchestrator.engines.kv_cache.attention import Groups, Parts, takes_parts
from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB, KeyValues
from orchestrator.engines.kv_cache.prefix_match import Known
from orchestrator.engines.kv_cache.rows import Pair
from orchestrator.engines.kv_cache.sample_cache import attended
from orchestrator.rewards.masks import additive_mask
from orchestrator.rewards.packed import PADDING, TRUNK, Ids, Tokens, joined

TOKENS_PER_FORWARD = 8_192  # queries of a forward, padding included
# Padding of a forward that is cheaper than another forward; more where a call weighs more.
PADDING_ON_CPU, PADDING_ELSEWHERE = 128, 1_024
Tails = Sequence[tuple[Ids, Ids]]  # candidates, each with what closes it and is not kept


@dataclass(frozen=True)
class Read:
    """Outputs of one text: (D,) at its last token, if wanted, and (K, D) at the ends of its tails.

    ``computed`` is how many tokens that took.
    """

    last: Tensor | None
    tails: Tensor
    computed: int


class Reader:
    """One model with its store of keys and values.

    Args:
        model: in evaluation mode, on its device; layers that a mask decides alone.
        forward: gives the output (N, Tq, D) of the model for its own arguments, or (N, 1, D) that
            of the last token, where no tails are read.
        pad_id: any token id; padding is never read.
        memory_mib: of the store.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        forward: Callable[..., Tensor],
        pad_id: int,
        memory_mib: float = MEMORY_MIB,
    ) -> None:
        self._model, self._output, self._pad_id = model, forward, pad_id
        self._device = model.device  # transformers walks through all weights at each question
        self._padding = PADDING_ON_CPU if self._device.type == "cpu" else PADDING_ELSEWHERE
        self._count = model.config.get_text_config().num_hidden_layers
        self.in_parts = takes_parts(model)
        self.store = KeyValues(memory_mib)

    def forget(self) -> None:
        """Drops all keys and values that are kept."""
        self.store.forget()

    @torch.inference_mode()
    def read(
        self, texts: Sequence[Ids], tails: Sequence[Tails], last: Sequence[bool]
    ) -> list[Read]:
        """Reads N different texts that are not empty, with their tails; result i is text i's.

        ``last[i]``: whether the output at the last token of text i is wanted.
        """
        results: dict[int, Read] = {}
        known = self.store.known(texts)
        for i, (text, own) in enumerate(zip(texts, tails, strict=True)):
            if known.lengths[i] == len(text) and not own and not last[i]:
                results[i] = Read(None, torch.empty(0), 0)
        for batch in _batches(texts, known, tails, set(results), self._padding):
            part = known.some(batch)
            found = self._forward(
                [texts[i] for i in batch], part, [tails[i] for i in batch], [last[i] for i in batch]
            )
            results.update(zip(batch, found, strict=True))
        return [results[i] for i in range(len(texts))]

    def _forward(
        self, texts: list[Ids], known: Known, tails: list[Tails], last: list[bool]
    ) -> list[Read]:
        # Where the last output is wanted the last token is read again, if it was read before.
        used = [
            min(n, len(text) - 1) if want else n
            for text, n, want in zip(texts, known.lengths, last, strict=True)
        ]
        width = max(len(text) - n for text, n in zip(texts, used, strict=True))
        device = self._device
        queries = _queries(texts, used, tails, width, self._pad_id).to(device)
        begun = known.cut(used)
        keys = joined(begun.tokens().to(device), queries)
        cache, groups = DynamicCache(), begun.groups(None, device)
        layers = [
            _Layer(self.store, begun, groups, number, self.in_parts)
            for number in range(self._count)
        ]
        cache.layers = layers
        output = self._output(
            input_ids=queries.ids,
            attention_mask=additive_mask(self._model, queries, keys),
            position_ids=queries.position,
            past_key_values=cache,
            use_cache=True,
        )
        new = [layer.new for layer in layers]
        starts = [
            width - (len(text) - n) for text, n in zip(texts, known.lengths, strict=True)
        ]  # fmt: skip
        self.store.write(texts, known, new, starts)
        total = queries.shape[1]
        results: list[Read] = []
        pieces: list[list[tuple[Ids, int]]] = []
        for i, (text, own) in enumerate(zip(texts, tails, strict=True)):
            ends, column = [], width
            pieces.append([])
            for candidate, closing in own:
                pieces[-1].append((candidate, column))
                column += len(candidate) + len(closing)
                ends.append(column - 1 - total)
            found = output[i, torch.tensor(ends, dtype=torch.int64, device=device)]
            ending = output[i, width - 1 - total] if last[i] else None
            results.append(Read(ending, found, len(text) - used[i] + column - width))
        if any(map(len, tails)):
            self.store.remember(texts, pieces, new)
        return results


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer of a forward over the store; ``new`` is what the forward computed."""

    new: Pair

    def __init__(
        self,
        store: KeyValues,
        known: Known,
        groups: Sequence[Groups | None],
        number: int,
        in_parts: bool,
    ) -> None:
        super().__init__()
        self._store, self._known, self._groups = store, known, groups
        self._number, self._in_parts = number, in_parts

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor | Parts, Tensor | Parts]:
        """All that the queries may see, (N, H, T + Tq, D) each."""
        self.new = key_states, value_states
        if not max(self._known.lengths):
            return self.new
        known = self._store.taken(self._known, self._number)
        return attended(known, self._groups, self.new, self._in_parts)

    def get_seq_length(self) -> int:
        """T, the columns of what was read before."""
        return sum(self._known.widths)


def _queries(
    texts: Sequence[Ids], used: Sequence[int], tails: Sequence[Tails], width: int, pad_id: int
) -> Tokens:
    """The new tokens of texts, aligned on the right in ``width`` columns, their tails behind."""
    most = max(sum(len(a) + len(b) for a, b in own) for own in tails)
    fields = np.empty((4, len(texts), width + most), np.int64)
    fields[:] = np.array([pad_id, 0, 0, PADDING])[:, None, None]
    for i, (text, n, own) in enumerate(zip(texts, used, tails, strict=True)):
        place = np.arange(n, len(text))
        first = width - len(place)
        fields[0, i, first:width] = text[n:]
        fields[1, i, first:width], fields[2, i, first:width] = place, place + 1
        fields[3, i, first:width] = TRUNK
        tokens = [a + b for a, b in own]
        end = width + sum(map(len, tokens))
        fields[0, i, width:end] = [token for tail in tokens for token in tail]
        fields[1, i, width:end] = [len(text) + j for tail in tokens for j in range(len(tail))]
        fields[2, i, width:end] = len(text)
        fields[3, i, width:end] = [k for k, tail in enumerate(tokens) for _ in tail]
    return Tokens(*torch.from_numpy(fields).unbind(0))


def _batches(
    texts: Sequence[Ids],
    known: Known,
    tails: Sequence[Tails],
    skipped: Container[int],
    padding: int,
) -> list[list[int]]:
    """Numbers of texts by what is new of them, then by their tails, in batches of few padding.

    So those with few new tokens are not held up by long ones, nor beams by two that became the same
    text, with the candidates of both.
    """
    new = [len(text) - n for text, n in zip(texts, known.lengths, strict=True)]
    behind = [sum(len(a) + len(b) for a, b in own) for own in tails]
    batches: list[list[int]] = []
    filled, widest = 0, 0  # tokens of the last batch, and of its tails
    some = (i for i in range(len(texts)) if i not in skipped)
    for i in sorted(some, key=lambda i: (new[i], behind[i])):
        filled, widest = filled + new[i] + behind[i], max(widest, behind[i])
        padded = (new[i] + widest) * (len(batches[-1]) + 1) if batches else 0
        if not batches or padded > TOKENS_PER_FORWARD or padded - filled > padding:
            batches.append([])
            filled, widest = new[i] + behind[i], behind[i]
        batches[-1].append(i)
    # Texts of a root one after the other: attention then has nothing to rearrange.
    return [sorted(batch, key=lambda i: (known.roots[i].place, i)) for batch in batches]
