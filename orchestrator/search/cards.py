"""CARDS, cascade reward sampling (Algorithm 4, Li et al. 2024): segments by rejection sampling.

A segment ends where the policy is uncertain; it is kept if its reward reaches a threshold that
rises with the length. All quantities are absolute: quantiles are resolved by the caller.
"""

import math
from dataclasses import dataclass, replace

from orchestrator.randomness import uniforms
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate
from orchestrator.search.state import State


@dataclass(frozen=True)
class CardsParameters:
    """``target_reward`` and ``beta`` are on the scorer's own scale and so have no default.

    Attributes:
        target_reward: r*, the threshold at the greatest length, in units of the reward.
        beta: not below 0, in units of the reward; 0 rejects all below the threshold.
        alpha: of 0..1, the share of r* in the threshold of the empty response
            (0.5, 64 and 20 below are from the public code of CARDS).
        entropy_threshold: tau_u in nats (paper C.5: 7.0); a segment ends before a token whose
            next-token entropy reaches it.
        segment_cap: the most tokens of a segment.
        max_rejections: how many segments are refused in a row, at least 1, before the best one
            of them is taken.
    """

    target_reward: float
    beta: float
    alpha: float = 0.5
    entropy_threshold: float = 7.0
    segment_cap: int = 64
    max_rejections: int = 20


@dataclass(frozen=True)
class CardsState(State):
    """``initial`` is r_0, the threshold of the empty response."""

    initial: float = 0.0


async def begin_cards(ask: Ledger, parameters: CardsParameters) -> CardsState:
    """The empty response, whose reward says where the threshold begins."""
    (empty_reward,) = await ask.score((), (Candidate(),))
    alpha = parameters.alpha
    initial = (1 - alpha) * empty_reward + alpha * parameters.target_reward
    return CardsState((Candidate(),), initial=initial)


async def cards_step(ask: Ledger, state: CardsState, parameters: CardsParameters) -> CardsState:
    """The next segment: the first accepted or, after ``max_rejections``, the best refused one."""
    refused: list[Candidate] = []
    while len(refused) < parameters.max_rejections:
        grown = await _segment(ask, state, len(refused), parameters)
        length, most = len(grown.token_ids), ask.problem.max_new_tokens
        asked = threshold(length, most, state.initial, parameters.target_reward)
        probability = acceptance(grown.score, asked, parameters.beta)
        key = ask.problem.key("cards-accept", state.step, len(refused))
        draw = float(uniforms(key, 1)[0])
        ask.decided(abs(draw - probability))
        if draw < probability:
            return replace(state, candidates=(grown,))
        refused.append(grown)
    return replace(state, candidates=ask.select(refused, 1))


def threshold(length: int, max_length: int, initial: float, target: float) -> float:
    """The reward asked of a response of ``length`` tokens: from r_0 at none to r* at the most."""
    return initial + (target - initial) * length / max_length


def acceptance(value: float, asked: float, beta: float) -> float:
    """min(1, exp((r - threshold) / beta)); at beta 0 its limit: 1 from the threshold on, else 0."""
    if beta == 0.0:  # of a scorer that gave all calibration responses the same reward
        return float(value >= asked)
    return math.exp(min(0.0, (value - asked) / beta))


async def _segment(
    ask: Ledger, state: CardsState, attempt: int, parameters: CardsParameters
) -> Candidate:
    """The response with a scored segment more, of the stream of (..., "cards", step, attempt)."""
    (kept,) = state.candidates
    (segment,) = await ask.sample(
        kept.token_ids,
        (ask.problem.key("cards", state.step, attempt),),
        min(parameters.segment_cap, ask.problem.room(kept)),
        entropy_stop=parameters.entropy_threshold,
    )
    (score,) = await ask.score(kept.token_ids, (segment,))
    return kept.extended(segment, score)
