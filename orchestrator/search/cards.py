"""CARDS, cascade reward sampling (Algorithm 4, Li et al. 2024): segments by rejection sampling.

A segment ends where the policy is uncertain; it is kept if its reward reaches a threshold that
rises with the length. All quantities are absolute: quantiles are resolved by the caller.
"""

import math
from dataclasses import dataclass

from orchestrator.randomness import uniforms
from orchestrator.records import Response
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate, Problem, ranked


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


async def cards(
    problem: Problem, policy: Policy, reward: Reward, parameters: CardsParameters
) -> Response:
    """Grows a response by segments, each drawn until one is accepted."""
    ask = Ledger(problem, policy, reward)
    (empty_reward,) = await ask.score((), ((),))
    alpha = parameters.alpha
    initial = (1 - alpha) * empty_reward + alpha * parameters.target_reward  # r_0
    kept, step = Candidate(), 0
    while problem.room(kept):
        kept = await _next_segment(problem, ask, kept, step, initial, parameters)
        step += 1
    return ask.response(kept)


def threshold(length: int, max_length: int, initial: float, target: float) -> float:
    """The reward asked of a response of ``length`` tokens: from r_0 at none to r* at the most."""
    return initial + (target - initial) * length / max_length


def acceptance(value: float, asked: float, beta: float) -> float:
    """min(1, exp((r - threshold) / beta)); at beta 0 its limit: 1 from the threshold on, else 0."""
    if beta == 0.0:  # of a scorer that gave all calibration responses the same reward
        return float(value >= asked)
    return math.exp(min(0.0, (value - asked) / beta))


async def _next_segment(
    problem: Problem,
    ask: Ledger,
    kept: Candidate,
    step: int,
    initial: float,
    parameters: CardsParameters,
) -> Candidate:
    """The first accepted segment or, after ``max_rejections``, the best of the refused."""
    limit = min(parameters.segment_cap, problem.room(kept))
    refused: list[Candidate] = []
    while len(refused) < parameters.max_rejections:
        attempt = len(refused)
        (segment,) = await ask.sample(
            kept.token_ids,
            (problem.key("cards", step, attempt),),
            limit,
            entropy_stop=parameters.entropy_threshold,
        )
        (score,) = await ask.score(kept.token_ids, (segment.token_ids,))
        grown = kept.extended(segment, score)
        asked = threshold(
            len(grown.token_ids), problem.max_new_tokens, initial, parameters.target_reward
        )
        draw = float(uniforms(problem.key("cards-accept", step, attempt), 1)[0])
        if draw < acceptance(score, asked, parameters.beta):
            return grown
        refused.append(grown)
    return ranked(refused)[0]
