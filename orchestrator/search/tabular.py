"""Engines as plain functions over a vocabulary that is small enough to enumerate.

They are the slow reference of the protocols in ``engines``, for tests of other engines and of
methods.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.randomness import uniforms
from orchestrator.search.engines import (
    Continuation,
    Ids,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    Stop,
    TopRequest,
    TopTokens,
)


def digits(token_ids: Ids) -> str:
    """Return token ids as digits without separators."""
    return "".join(map(str, token_ids))


@dataclass(frozen=True)
class TabularPolicy:
    """A policy defined by its next-token logits.

    Attributes:
        logits: returns the V logits after (prompt ids, response ids); token ids are 0..V-1.
        end_id: the token that ends a response.
        text: decodes token ids; by default to their digits.
    """

    logits: Callable[[Ids, Ids], Sequence[float]]
    end_id: int
    text: Callable[[Ids], str] = digits

    def probabilities(self, prompt_ids: Ids, response_ids: Ids) -> NDArray[np.float64]:
        """Return the next-token distribution, shape (V,)."""
        logits = np.asarray(self.logits(prompt_ids, response_ids), dtype=np.float64)
        weights = np.exp(logits - logits.max())
        return np.asarray(weights / weights.sum())

    async def sample(self, request: SampleRequest) -> Sampled:
        """Sample by inverting the cumulative distribution, one uniform number per token."""
        continuations = [self._continuation(request, key) for key in request.keys]
        sampled = sum(len(c.token_ids) + c.finished for c in continuations)
        # Every token is computed, except a last one at the limit or a stop.
        computed = sum(len(c.token_ids) - (c.stop in ("length", "stop")) for c in continuations)
        prefix = len(request.prompt_ids + request.prefix_ids)
        return Sampled(tuple(continuations), sampled, prefix + computed)

    async def top_next_tokens(self, request: TopRequest) -> TopTokens:
        """Sort all logits; equal ones by the smaller token id."""
        logits = np.asarray(self.logits(request.prompt_ids, request.prefix_ids), dtype=np.float64)
        every = np.argsort(-logits, kind="stable").tolist()
        order, others = every[: request.count], every[request.count :]
        margin = float(logits[order[-1]] - logits[others[0]]) if others else math.inf
        tokens = tuple(None if token == self.end_id else token for token in order)
        computed = len(request.prompt_ids + request.prefix_ids)
        return TopTokens(tokens, tuple(float(logits[token]) for token in order), computed, margin)

    def _continuation(self, request: SampleRequest, key: int) -> Continuation:
        draws = uniforms(key, request.max_new_tokens)
        tokens: list[int] = []
        entropies: list[float] = []
        margins = [math.inf]

        def ended(stop: Stop) -> Continuation:
            text = self.text(tuple(tokens)) if request.texts else None
            returned = tuple(entropies) if request.needs_entropies else ()
            return Continuation(tuple(tokens), stop, returned, min(margins), text)

        while len(tokens) < request.max_new_tokens:
            response = request.prefix_ids + tuple(tokens)
            probabilities = self.probabilities(request.prompt_ids, response)
            entropy = -sum(p * math.log(p) for p in probabilities.tolist() if p > 0)
            if tokens and request.entropy_stop is not None:
                margins.append(abs(entropy - request.entropy_stop))
                if entropy >= request.entropy_stop:
                    return ended("entropy")
            entropies.append(entropy)
            token, margin = _greedy(self.logits(request.prompt_ids, response))
            if not request.greedy:
                token, margin = _draw(probabilities, draws[len(tokens)])
            margins.append(margin)
            if token == self.end_id:
                return ended("end")
            tokens.append(token)
            if any(stop in self.text(tuple(tokens)) for stop in request.stops):
                return ended("stop")
        return ended("length")


def _greedy(logits: Sequence[float]) -> tuple[int, float]:
    """Return the likeliest token and its lead in logits."""
    order = np.argsort(-np.asarray(logits, dtype=np.float64), kind="stable").tolist()
    lead = logits[order[0]] - logits[order[1]] if len(order) > 1 else math.inf
    return order[0], float(lead)


def _draw(probabilities: NDArray[np.float64], draw: float) -> tuple[int, float]:
    """Return the token whose interval holds a draw, and the distance to the nearer border."""
    borders = np.concatenate([[0.0], probabilities.cumsum()])
    target = draw * borders[-1]
    token = int(np.searchsorted(borders[1:], target, side="right"))
    return token, float(min(target - borders[token], borders[token + 1] - target))


@dataclass(frozen=True)
class TabularReward:
    """A reward defined by a function of (prompt ids, response ids)."""

    value: Callable[[Ids, Ids], float]

    async def score(self, request: ScoreRequest) -> Scored:
        """Score each extension; the prefix counts once, as in one pass over all."""
        scores = tuple(
            self.value(request.prompt_ids, request.prefix_ids + extension)
            for extension in request.extensions
        )
        prefix = len(request.prompt_ids + request.prefix_ids)
        return Scored(scores, prefix + sum(map(len, request.extensions)))
