"""Samples on their way: their keyed draws, what each has so far, and when it stops."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.stop_texts import StopReader
from orchestrator.randomness import first_uniforms, uniforms
from orchestrator.search.engines import Continuation, Sampled, SampleRequest, Stop

BLOCK = 256  # tokens whose probabilities are summed first


@dataclass(slots=True)  # thousands at every step of a token-level search
class DrawnRow:
    """One sample on its way; ``uncertain``: whether its entropies are wanted."""

    request: int
    limit: int
    entropy_stop: float
    greedy: bool
    uncertain: bool
    draws: np.ndarray
    tokens: list[int]
    entropies: list[float]
    stop: Stop | None = None
    margin: float = math.inf
    stops: StopReader | None = None


def distribution(logits: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor | None]:
    """Probabilities (R, V) after temperature and top-p, and the margin of top-p's cut (R,).

    The margin is a probability: the least distance to ``top_p`` of what stands before a token, or
    the lead of the last token kept over the first that is cut; None where nothing is cut.
    """
    heated = logits if temperature == 1 else logits / temperature
    probabilities = torch.softmax(heated, dim=-1)
    if top_p >= 1:
        return probabilities, None
    ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    outside = before >= top_p
    kept = torch.zeros_like(probabilities).scatter(-1, ids, ordered.masked_fill(outside, 0))
    border = (before - top_p).abs().amin(-1)
    count = (~outside).sum(-1, keepdim=True)
    following = ordered.gather(-1, count.clamp(max=ordered.shape[-1] - 1)).squeeze(-1)
    lead = ordered.gather(-1, count - 1).squeeze(-1) - following
    lead = lead.masked_fill(count.squeeze(-1) == ordered.shape[-1], math.inf)
    return kept / kept.sum(-1, keepdim=True), torch.minimum(border, lead)


class Intervals:
    """The interval of each token in [0, total), of which only those near a draw are summed.

    A cumulative sum over a whole vocabulary in float64 took as long as the forward of a small
    model. Here tokens are summed in blocks, and within the block that a draw falls into.

    Args:
        probabilities: (P, V), not negative.
    """

    def __init__(self, probabilities: Tensor) -> None:
        spare = -probabilities.shape[-1] % BLOCK
        padded = torch.nn.functional.pad(probabilities, (0, spare)) if spare else probabilities
        self._blocks = padded.unflatten(-1, (-1, BLOCK))
        self._ends = self._blocks.sum(-1, dtype=torch.float64).cumsum(-1)  # (P, B)

    @property
    def total(self) -> Tensor:
        """(P,)."""
        total: Tensor = self._ends[:, -1]
        return total

    def drawn(self, draws: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The token (R,) in whose interval each draw falls, and how far from the nearer border.

        A token of probability 0 is never drawn. A draw that only rounding brings past a border is
        at distance 0 from it.

        Args:
            draws: (R,) float64 in [0, 1), of the total.
            index: (R,) which row of probabilities each is of; None: row r is draw r's.
        """
        rows = torch.arange(len(draws), device=draws.device) if index is None else index
        ends = self._ends[rows]
        target = _below(draws * ends[:, -1], ends[:, -1])[:, None]
        block = torch.searchsorted(ends, target, right=True)
        before = ends.gather(1, (block - 1).clamp(min=0)).masked_fill(block == 0, 0.0)
        inner = before + self._blocks[rows, block.squeeze(1)].double().cumsum(-1)
        target = _below(target, inner[:, -1:])
        place = torch.searchsorted(inner, target, right=True)
        lower = torch.where(place == 0, before, inner.gather(1, (place - 1).clamp(min=0)))
        near = torch.minimum(target - lower, inner.gather(1, place) - target).clamp(min=0.0)
        return (block * BLOCK + place).squeeze(1), near.squeeze(1)


def _below(values: Tensor, limits: Tensor) -> Tensor:
    """Values, each less than its limit."""
    return torch.minimum(values, torch.nextafter(limits, torch.zeros_like(limits)))


def draws_of(requests: Sequence[SampleRequest]) -> Iterator[np.ndarray]:
    """The uniform numbers of every sample of some requests, as many as it has tokens at most."""
    single = [one for one in requests if one.max_new_tokens == 1 and not one.greedy]
    first = iter(first_uniforms([key for one in single for key in one.keys])[:, None])
    for request in requests:
        for key in request.keys:
            if request.greedy:
                yield np.zeros(request.max_new_tokens)
            elif request.max_new_tokens == 1:
                yield next(first)
            else:
                yield uniforms(key, request.max_new_tokens)


def new_row(
    number: int, request: SampleRequest, draws: np.ndarray, stops: StopReader | None
) -> DrawnRow:
    """A sample of the request of a number, before its first token."""
    stop = float("inf") if request.entropy_stop is None else request.entropy_stop
    return DrawnRow(
        number, request.max_new_tokens, stop, request.greedy, request.tells_entropies,
        draws, [], [], stops=stops,
    )  # fmt: skip


def append(
    row: DrawnRow, token: int, entropy: float, margin: float, cut: float, ends: tuple[int, ...]
) -> None:
    """Gives a row its next token, of such an entropy (nats) and margins; it may stop by that.

    ``cut`` is the margin of top-p, on which the entropy depends too.
    """
    if row.stop is not None:
        return
    row.margin = min(row.margin, cut)
    if row.tokens:
        row.margin = min(row.margin, abs(entropy - row.entropy_stop))
        if entropy >= row.entropy_stop:
            row.stop = "entropy"
            return
    row.margin = min(row.margin, margin)
    if row.uncertain:
        row.entropies.append(entropy)
    if token in ends:
        row.stop = "end"
        return
    row.tokens.append(token)
    if row.stops is not None and row.stops.completed(row.tokens):
        row.stop = "stop"
    elif len(row.tokens) == row.limit:
        row.stop = "length"


def sampled_of(rows: list[DrawnRow], prefill: int, chat: Chat | None) -> Sampled:
    """The answer of a request's rows, with texts where ``chat`` is there to write them.

    ``prefill`` tokens were computed of its prefix.
    """
    done = []
    for row in rows:
        assert row.stop is not None
        text = None if chat is None else chat.text(row.tokens)
        entropies = tuple(row.entropies)
        done.append(Continuation(tuple(row.tokens), row.stop, entropies, row.margin, text))
    sampled = sum(len(row.tokens) + (row.stop == "end") for row in rows)
    # Every token but one that stops a row goes through the model, to see what comes after it.
    computed = sum(len(row.tokens) - (row.stop in ("length", "stop")) for row in rows)
    return Sampled(tuple(done), sampled, prefill + computed)
