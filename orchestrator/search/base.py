"""The policy alone (the paper's Base): one plain sample, or the greedy response.

Asks for no score: the response's ``score`` is None.
"""

from dataclasses import dataclass

from orchestrator.records import Response
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate, Problem


@dataclass(frozen=True)
class NoParameters:
    """The policy alone has nothing to set."""


async def base(
    problem: Problem, policy: Policy, reward: Reward, parameters: NoParameters
) -> Response:
    """One sample of the policy; its stream is keyed by (seed, prompt id, "base")."""
    return await _one_response(Ledger(problem, policy, reward), problem, greedy=False)


async def greedy(
    problem: Problem, policy: Policy, reward: Reward, parameters: NoParameters
) -> Response:
    """The response of likeliest tokens."""
    return await _one_response(Ledger(problem, policy, reward), problem, greedy=True)


async def _one_response(ask: Ledger, problem: Problem, greedy: bool) -> Response:
    keys = (problem.key("base"),)
    (drawn,) = await ask.sample((), keys, problem.max_new_tokens, greedy=greedy)
    return ask.response(Candidate(drawn.token_ids, drawn.stop == "end"))
