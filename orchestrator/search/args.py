"""ARGS-greedy (Algorithm 2, Khanov et al. 2024): rewards join the logits of next tokens.

Knows nothing of tokenizers; the end token is ``None`` among the candidates.
"""

from dataclasses import dataclass

from orchestrator.records import Response
from orchestrator.search.engines import Continuation, Policy, Reward
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate, Problem


@dataclass(frozen=True)
class ArgsParameters:
    """``weight`` is w, per unit of reward; ``k`` candidates, at least 1 (paper C.5: 1.5 and 30)."""

    weight: float = 1.5
    k: int = 30


async def args_greedy(
    problem: Problem, policy: Policy, reward: Reward, parameters: ArgsParameters
) -> Response:
    """Next token = argmax over the policy's top k of logit + w * r([x, y, v]).

    Equal values go to the likelier token. The end token ends the response; its reward is that of
    the response without it, since closed scoring closes every candidate.
    """
    ask = Ledger(problem, policy, reward)
    kept = Candidate()
    while problem.room(kept):
        kept = await _next_token(ask, kept, parameters)
    return ask.response(kept)


async def _next_token(ask: Ledger, kept: Candidate, parameters: ArgsParameters) -> Candidate:
    top = await ask.top(kept.token_ids, parameters.k)
    steps = [
        Continuation((), "end") if token is None else Continuation((token,), "length")
        for token in top.token_ids
    ]
    rewards = await ask.score(kept.token_ids, tuple(step.token_ids for step in steps))
    values = [
        logit + parameters.weight * value for logit, value in zip(top.logits, rewards, strict=True)
    ]
    chosen = values.index(max(values))  # the first of equals, which is the likelier token
    return kept.extended(steps[chosen], rewards[chosen])
