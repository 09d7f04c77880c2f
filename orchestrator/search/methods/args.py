"""ARGS (Algorithm 2, Khanov et al. 2024): rewards are added to the logits of next tokens.

Greedy ARGS takes the token of the highest value, stochastic ARGS draws one.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from orchestrator.fields.types import Count, Positive, Real
from orchestrator.randomness import uniforms
from orchestrator.search.client import MeteredClient
from orchestrator.search.engines import Continuation
from orchestrator.search.method import SearchMethod, register
from orchestrator.search.problem import Candidate
from orchestrator.search.state import SearchState

COLDEST = 1e-3  # temperature: below, logits divided by it leave float32
SECONDS_PER_TOKEN = 0.0017


@register
class Args(SearchMethod):
    """ARGS-greedy (Algorithm 2): the next token maximizes logit + w * reward (C.5: 1.5, 30)."""

    name: Literal["args"] = "args"
    weight: Real = 1.5
    """w, the weight of the reward: logits per unit of reward."""
    k: Count = 30
    """Number of candidates: the most probable next tokens."""

    order: ClassVar[int] = 30
    on_by_default: ClassVar[bool] = True
    samples_policy: ClassVar[bool] = False
    is_random: ClassVar[bool] = False

    async def step(self, client: MeteredClient, state: SearchState) -> SearchState:
        """Append argmax over the policy's top k of logit + w * r([x, y, v]).

        Of equal values the likelier token is taken. The end token ends the response; its reward is
        that of the finished response.
        """
        candidates, values = await self.valued(client, state)
        best = values.index(max(values))  # the first of equals, which is the likelier token
        others = values[:best] + values[best + 1 :]
        client.decided(values[best] - max(others, default=-math.inf))
        return replace(state, candidates=(candidates[best],))

    async def valued(
        self, client: MeteredClient, state: SearchState
    ) -> tuple[list[Candidate], list[float]]:
        """Return the response with each of the top k next tokens, by falling logit, and values."""
        (prefix,) = state.candidates
        top = await client.top_next_tokens(prefix.token_ids, self.k)
        tokens = [
            Continuation((), "end") if token is None else Continuation((token,), "length")
            for token in top.token_ids
        ]
        rewards = await client.score(prefix.token_ids, tokens)
        candidates = [
            prefix.extended(token, reward) for token, reward in zip(tokens, rewards, strict=True)
        ]
        values = [
            logit + self.weight * reward for logit, reward in zip(top.logits, rewards, strict=True)
        ]
        return candidates, values

    @property
    def candidate_counts(self) -> dict[str, int]:
        """The top k tokens."""
        return {"k": self.k}

    def seconds(self, tokens: float) -> float:
        """Estimate the seconds of a prompt: one step per token."""
        return SECONDS_PER_TOKEN * tokens


@register
class StochasticArgs(Args):
    """ARGS that draws the next token from softmax(value / temperature)."""

    name: Literal["args_stochastic"] = "args_stochastic"  # type: ignore[assignment]
    temperature: Annotated[Positive, Field(ge=COLDEST)] = 0.7
    """tau, the temperature of the draw, in units of the value (the public code of ARGS: 0.7)."""

    order: ClassVar[int] = 31
    on_by_default: ClassVar[bool] = False
    is_random: ClassVar[bool] = True

    async def step(self, client: MeteredClient, state: SearchState) -> SearchState:
        """Append a token ~ softmax over the policy's top k of (logit + w * r([x, y, v])) / tau.

        The random stream is keyed by (seed, prompt id, "args_stochastic", step). Tokens are in the
        order of their ids, not of their logits: rounding may change the order of two logits.
        """
        candidates, values = await self.valued(client, state)
        order = sorted(
            range(len(values)), key=lambda i: (candidates[i].finished, candidates[i].token_ids)
        )
        draw = float(uniforms(client.problem.key(self.name, state.step), 1)[0])
        index, margin = draw_softmax([values[i] / self.temperature for i in order], draw)
        client.decided(margin)
        return replace(state, candidates=(candidates[order[index]],))


def draw_softmax(values: Sequence[float], draw: float) -> tuple[int, float]:
    """Return the index where a uniform number falls in a softmax, and its distance to a border."""
    largest = max(values)
    borders = list(accumulate(math.exp(value - largest) for value in values))
    target = draw * borders[-1]
    index = next(i for i, border in enumerate(borders) if border > target)
    below = borders[index - 1] if index else 0.0
    return index, min(target - below, borders[index] - target) / borders[-1]
