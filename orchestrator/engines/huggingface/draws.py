"""Samples in progress: keyed random draws, the tokens so far, and when a sample stops."""

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


@dataclass(slots=True)  # token-level search makes thousands at every step
class ActiveSample:
    """One sample in progress.

    ``request`` is its request's id, ``draws`` (T,) its uniform numbers, ``entropy_stop`` in nats.
    """

    request: int
    max_new_tokens: int
    entropy_stop: float
    greedy: bool
    needs_entropies: bool
    draws: np.ndarray
    tokens: list[int]
    entropies: list[float]
    stop: Stop | None = None
    margin: float = math.inf
    stops: StopReader | None = None


def distribution(logits: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor | None]:
    """Return probabilities (R, V) after temperature and top-p, and the margin of top-p's cut (R,).

    The margin is a probability: the smallest distance of the mass before a token to ``top_p``, or
    the lead of the last token kept over the first one dropped. None if ``top_p`` drops nothing.
    """
    scaled = logits if temperature == 1 else logits / temperature
    probabilities = torch.softmax(scaled, dim=-1)
    if top_p >= 1:
        return probabilities, None
    ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    dropped = before >= top_p
    nucleus = torch.zeros_like(probabilities).scatter(-1, ids, ordered.masked_fill(dropped, 0))
    border = (before - top_p).abs().amin(-1)
    count = (~dropped).sum(-1, keepdim=True)
    following = ordered.gather(-1, count.clamp(max=ordered.shape[-1] - 1)).squeeze(-1)
    lead = ordered.gather(-1, count - 1).squeeze(-1) - following
    lead = lead.masked_fill(count.squeeze(-1) == ordered.shape[-1], math.inf)
    return nucleus / nucleus.sum(-1, keepdim=True), torch.minimum(border, lead)


class TokenIntervals:
    """The interval of each token in [0, total); draws tokens by inverting the cumulative sum.

    A cumulative sum over the full vocabulary in float64 took as long as the forward of a small
    model. Here blocks of tokens are summed first, then the tokens of the drawn block.

    Args:
        probabilities: (P, V), not negative.
    """

    def __init__(self, probabilities: Tensor) -> None:
        padding = -probabilities.shape[-1] % BLOCK
        padded = torch.nn.functional.pad(probabilities, (0, padding)) if padding else probabilities
        self._blocks = padded.unflatten(-1, (-1, BLOCK))
        self._ends = self._blocks.sum(-1, dtype=torch.float64).cumsum(-1)  # (P, B)

    @property
    def total(self) -> Tensor:
        """(P,)."""
        total: Tensor = self._ends[:, -1]
        return total

    def draw(self, draws: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the token (R,) whose interval holds each draw, and the distance to its border.

        A token of probability 0 is never drawn. A draw that only rounding moves past a border has
        distance 0.

        Args:
            draws: (R,) float64 in [0, 1), as shares of the total.
            index: (R,) the row of probabilities of each draw; None: draw r is of row r.
        """
        rows = torch.arange(len(draws), device=draws.device) if index is None else index
        ends = self._ends[rows]
        target = _below(draws * ends[:, -1], ends[:, -1])[:, None]
        block = torch.searchsorted(ends, target, right=True)
        before = ends.gather(1, (block - 1).clamp(min=0)).masked_fill(block == 0, 0.0)
        inner = before + self._blocks[rows, block.squeeze(1)].double().cumsum(-1)
        target = _below(target, inner[:, -1:])
        column = torch.searchsorted(inner, target, right=True)
        lower = torch.where(column == 0, before, inner.gather(1, (column - 1).clamp(min=0)))
        margin = torch.minimum(target - lower, inner.gather(1, column) - target).clamp(min=0.0)
        return (block * BLOCK + column).squeeze(1), margin.squeeze(1)


def _below(values: Tensor, limits: Tensor) -> Tensor:
    """Return values, each reduced to less than its limit."""
    return torch.minimum(values, torch.nextafter(limits, torch.zeros_like(limits)))


def uniform_draws(requests: Sequence[SampleRequest]) -> Iterator[np.ndarray]:
    """Yield the uniform numbers (max_new_tokens,) of every sample of the requests, in order."""
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


def new_sample(
    request_id: int, request: SampleRequest, draws: np.ndarray, stops: StopReader | None
) -> ActiveSample:
    """Return a sample of a request, before its first token."""
    stop = float("inf") if request.entropy_stop is None else request.entropy_stop
    return ActiveSample(
        request_id, request.max_new_tokens, stop, request.greedy, request.needs_entropies,
        draws, [], [], stops=stops,
    )  # fmt: skip


def append(
    sample: ActiveSample,
    token: int,
    entropy: float,
    margin: float,
    cut: float,
    end_ids: tuple[int, ...],
) -> None:
    """Append the next token to a sample, or stop it.

    Args:
        sample: unchanged if it has stopped.
        token: the drawn token.
        entropy: in nats, of the token's distribution.
        margin: margin of the token's draw.
        cut: margin of top-p, on which the entropy depends too.
        end_ids: tokens that end a response.
    """
    if sample.stop is not None:
        return
    sample.margin = min(sample.margin, cut)
    if sample.tokens:
        sample.margin = min(sample.margin, abs(entropy - sample.entropy_stop))
        if entropy >= sample.entropy_stop:
            sample.stop = "entropy"
            return
    sample.margin = min(sample.margin, margin)
    if sample.needs_entropies:
        sample.entropies.append(entropy)
    if token in end_ids:
        sample.stop = "end"
        return
    sample.tokens.append(token)
    if sample.stops is not None and sample.stops.completed(sample.tokens):
        sample.stop = "stop"
    elif len(sample.tokens) == sample.max_new_tokens:
        sample.stop = "length"


def to_result(samples: list[ActiveSample], prefill: int, chat: Chat | None) -> Sampled:
    """Return the result of a request from its stopped samples.

    Args:
        samples: in the order of the request's keys.
        prefill: tokens computed of the request's prefix.
        chat: decodes the texts; None leaves them out.
    """
    continuations = []
    for sample in samples:
        assert sample.stop is not None
        text = None if chat is None else chat.text(sample.tokens)
        entropies = tuple(sample.entropies)
        continuations.append(
            Continuation(tuple(sample.tokens), sample.stop, entropies, sample.margin, text)
        )
    sampled = sum(len(sample.tokens) + (sample.stop == "end") for sample in samples)
    # Every token goes through the model, except one that stops its sample.
    computed = sum(len(sample.tokens) - (sample.stop in ("length", "stop")) for sample in samples)
    return Sampled(tuple(continuations), sampled, prefill + computed)
