"""The two engines written as plain functions over a vocabulary small enough to enumerate.

This is what the protocols of ``engines`` mean, in the shortest code: the slow reference that other
engines and the methods can be checked against. Knows no model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.randomness import generator, uniforms
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
    """Token ids as text without anything between."""
    return "".join(map(str, token_ids))


@dataclass(frozen=True)
class TabularPolicy:
    """A policy by its next-token logits.

    Attributes:
        logits: gives the V logits after (prompt ids, response ids); token ids are 0..V-1.
        end_id: the one of them that ends a response.
        text: writes token ids as text; by default as their digits, one after the other.
    """

    logits: Callable[[Ids, Ids], Sequence[float]]
    end_id: int
    text: Callable[[Ids], str] = digits

    def probabilities(self, prompt_ids: Ids, response_ids: Ids) -> NDArray[np.float64]:
        """The next-token distribution, shape (V,)."""
        logits = np.asarray(self.logits(prompt_ids, response_ids), dtype=np.float64)
        weights = np.exp(logits - logits.max())
        return np.asarray(weights / weights.sum())

    async def sample(self, request: SampleRequest) -> Sampled:
        """Samples by the inverse of the cumulative distribution, one uniform number a token."""
        drawn = [self._continuation(request, key) for key in request.keys]
        sampled = sum(len(c.token_ids) + c.finished for c in drawn)
        # Every token but the last at the limit or a stop is computed, to see what comes after it.
        computed = sum(len(c.token_ids) - (c.stop in ("length", "stop")) for c in drawn)
        prefix = len(request.prompt_ids + request.prefix_ids)
        return Sampled(tuple(drawn), sampled, prefix + computed)

    async def top(self, request: TopRequest) -> TopTokens:
        """Sorts all logits; equal ones by the smaller token id."""
        logits = np.asarray(self.logits(request.prompt_ids, request.prefix_ids), dtype=np.float64)
        every = np.argsort(-logits, kind="stable").tolist()
        order, rest = every[: request.count], every[request.count :]
        margin = float(logits[order[-1]] - logits[rest[0]]) if rest else math.inf
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
            told = tuple(entropies) if request.needs_entropies else ()
            return Continuation(tuple(tokens), stop, told, min(margins), text)

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
                token, margin = _drawn(probabilities, draws[len(tokens)])
            margins.append(margin)
            if token == self.end_id:
                return ended("end")
            tokens.append(token)
            if any(stop in self.text(tuple(tokens)) for stop in request.stops):
                return ended("stop")
        return ended("length")


def _greedy(logits: Sequence[float]) -> tuple[int, float]:
    """The likeliest token, and how far in logits it leads."""
    order = np.argsort(-np.asarray(logits, dtype=np.float64), kind="stable").tolist()
    lead = logits[order[0]] - logits[order[1]] if len(order) > 1 else math.inf
    return order[0], float(lead)


def _drawn(probabilities: NDArray[np.float64], draw: float) -> tuple[int, float]:
    """The token in whose interval a draw falls, and how far from the nearer border."""
    borders = np.concatenate([[0.0], probabilities.cumsum()])
    target = draw * borders[-1]
    token = int(np.searchsorted(borders[1:], target, side="right"))
    return token, float(min(target - borders[token], borders[token + 1] - target))


@dataclass(frozen=True)
class TabularReward:
    """A reward by its function of (prompt ids, response ids)."""

    value: Callable[[Ids, Ids], float]

    async def score(self, request: ScoreRequest) -> Scored:
        """Scores each extension; the prefix counts once, as one pass over all would compute it."""
        scores = tuple(
            self.value(request.prompt_ids, request.prefix_ids + extension)
            for extension in request.extensions
        )
        prefix = len(request.prompt_ids + request.prefix_ids)
        return Scored(scores, prefix + sum(map(len, request.extensions)))


def random_policy(seed: int, vocabulary: int, spread: float = 1.5) -> TabularPolicy:
    """A policy whose logits after every prefix are keyed normal draws; the last id is the end."""

    def logits(prompt_ids: Ids, response_ids: Ids) -> list[float]:
        rng = generator(seed, "logits", str(prompt_ids), str(response_ids))
        return [float(value) for value in spread * rng.normal(size=vocabulary)]

    return TabularPolicy(logits, end_id=vocabulary - 1)


def random_reward(seed: int) -> TabularReward:
    """A reward whose value of every prefix is a keyed normal draw."""

    def value(prompt_ids: Ids, response_ids: Ids) -> float:
        return float(generator(seed, "reward", str(prompt_ids), str(response_ids)).normal())

    return TabularReward(value)
