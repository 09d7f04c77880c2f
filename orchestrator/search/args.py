"""ARGS (Algorithm 2, Khanov et al. 2024): rewards join the logits of next tokens.

Greedy takes the best token, stochastic draws one. Knows nothing of tokenizers; the end token is
``None`` among the candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from orchestrator.randomness import uniforms
from orchestrator.search.engines import Continuation
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate
from orchestrator.search.state import State


@dataclass(frozen=True)
class ArgsParameters:
    """``weight`` is w, per unit of reward; ``k`` candidates, at least 1 (paper C.5: 1.5 and 30)."""

    weight: float = 1.5
    k: int = 30


@dataclass(frozen=True)
class StochasticArgsParameters(ArgsParameters):
    """``temperature`` is tau, above 0, in units of the value (0.7: the public code of ARGS)."""

    temperature: float = 0.7


async def args_step(ask: Ledger, state: State, parameters: ArgsParameters) -> State:
    """Next token = argmax over the policy's top k of logit + w * r([x, y, v]).

    Equal values go to the likelier token. The end token ends the response; its reward is that of
    the finished response.
    """
    grown, values = await _valued(ask, state, parameters)
    chosen = values.index(max(values))  # the first of equals, which is the likelier token
    others = values[:chosen] + values[chosen + 1 :]
    ask.decided(values[chosen] - max(others, default=-math.inf))
    return replace(state, candidates=(grown[chosen],))


async def stochastic_args_step(
    ask: Ledger, state: State, parameters: StochasticArgsParameters
) -> State:
    """Next token ~ softmax over the policy's top k of (logit + w * r([x, y, v])) / tau.

    The stream is keyed by (seed, prompt id, "args_stochastic", step). The interval of a token is
    where its id puts it, not its logit: rounding may change the order of two logits.
    """
    grown, values = await _valued(ask, state, parameters)
    order = sorted(range(len(grown)), key=lambda i: (grown[i].finished, grown[i].token_ids))
    draw = float(uniforms(ask.problem.key("args_stochastic", state.step), 1)[0])
    place, margin = drawn([values[i] / parameters.temperature for i in order], draw)
    ask.decided(margin)
    return replace(state, candidates=(grown[order[place]],))


def drawn(values: Sequence[float], draw: float) -> tuple[int, float]:
    """Where a uniform number falls in the softmax of ``values``, and how far from a border."""
    most = max(values)
    borders = list(accumulate(math.exp(value - most) for value in values))
    target = draw * borders[-1]
    place = next(i for i, border in enumerate(borders) if border > target)
    below = borders[place - 1] if place else 0.0
    return place, min(target - below, borders[place] - target) / borders[-1]


async def _valued(
    ask: Ledger, state: State, parameters: ArgsParameters
) -> tuple[list[Candidate], list[float]]:
    """The response with each of the top k next tokens, likelier ones first, and their values."""
    (kept,) = state.candidates
    top = await ask.top(kept.token_ids, parameters.k)
    tokens = [
        Continuation((), "end") if token is None else Continuation((token,), "length")
        for token in top.token_ids
    ]
    rewards = await ask.score(kept.token_ids, tokens)
    grown = [kept.extended(token, value) for token, value in zip(tokens, rewards, strict=True)]
    values = [
        logit + parameters.weight * value for logit, value in zip(top.logits, rewards, strict=True)
    ]
    return grown, values
