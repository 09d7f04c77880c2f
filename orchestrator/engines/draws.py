"""Samples on their way: their keyed draws, what each has so far, and when it stops."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchestrator.engines.chat import Chat
from orchestrator.engines.stops import StopReader
from orchestrator.randomness import first_uniforms, uniforms
from orchestrator.search.engines import Continuation, Ids, Sampled, SampleRequest, Stop


@dataclass(slots=True)  # thousands at every step of a token-level search
class DrawnRow:
    """One sample on its way."""

    request: int
    prefix: int
    limit: int
    entropy_stop: float
    greedy: bool
    draws: np.ndarray
    tokens: list[int]
    entropies: list[float]
    stop: Stop | None = None
    margin: float = math.inf
    stops: StopReader | None = None


def distribution(logits: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor | None]:
    """Probabilities (R, V) after temperature and top-p; how near the cut is to another one (R,).

    That is in probability, the least distance to ``top_p`` of what stands before a token, or the
    lead of the last token kept over the first that is cut; None where nothing is cut.
    """
    probabilities = torch.softmax(logits / temperature, dim=-1)
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


def inverse(cumulative: Tensor, draws: Tensor, index: Tensor | None) -> Tensor:
    """Where each draw (R,) falls in its row (``index``) of cumulative probabilities (P, V)."""
    if index is None:
        target = draws[:, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    target = draws * cumulative[index, -1]
    tokens = torch.empty_like(index)
    order = torch.argsort(index, stable=True)
    counts = torch.bincount(index, minlength=len(cumulative)).tolist()
    for place, own in enumerate(order.split(counts)):
        tokens[own] = torch.searchsorted(cumulative[place], target[own], right=True)
    return tokens


def border_distance(
    cumulative: Tensor, draws: Tensor, tokens: Tensor, index: Tensor | None
) -> Tensor:
    """How far each draw (R,) is from the nearer border of its token's interval, in probability.

    A draw past the last border, which only rounding can bring about, is at distance 0.
    """
    rows = torch.arange(len(tokens), device=tokens.device) if index is None else index
    target = draws * cumulative[rows, -1]
    below = cumulative[rows, (tokens - 1).clamp(min=0)].masked_fill(tokens == 0, 0.0)
    return torch.minimum(target - below, cumulative[rows, tokens] - target).clamp(min=0.0)


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
    index: int, prefix: int, request: SampleRequest, draws: np.ndarray, stops: StopReader | None
) -> DrawnRow:
    """A sample of a request, before its first token."""
    stop = float("inf") if request.entropy_stop is None else request.entropy_stop
    return DrawnRow(
        index, prefix, request.max_new_tokens, stop, request.greedy, draws, [], [], stops=stops
    )


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
    sampled = sum(len(row.entropies) for row in rows)
    # Every token but one that stops a row goes through the model, to see what comes after it.
    computed = sum(len(row.tokens) - (row.stop in ("length", "stop")) for row in rows)
    return Sampled(tuple(done), sampled, prefill + computed)


def batches(rows: list[DrawnRow], texts: list[Ids], most: int) -> list[list[DrawnRow]]:
    """Rows in batches of like prefix length, in an order that only the requests decide.

    There are ``most`` in each. Of those that want one token what counts is the different prefixes.
    """
    found: list[list[DrawnRow]] = []
    going, prefixes = 0, set[int]()
    for row in sorted(rows, key=lambda row: (len(texts[row.prefix]), row.prefix)):
        going += row.limit > 1
        prefixes.add(row.prefix)
        if not found or max(going, len(prefixes)) > most:
            found.append([])
            going, prefixes = int(row.limit > 1), {row.prefix}
        found[-1].append(row)
    return found
