"""The policy alone (the paper's Base): one plain sample, or the greedy response.

Asks for no score: the response's ``score`` is None.
"""

from dataclasses import dataclass, replace

from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate
from orchestrator.search.state import State


@dataclass(frozen=True)
class NoParameters:
    """The policy alone has nothing to set."""


async def base_step(ask: Ledger, state: State, parameters: NoParameters) -> State:
    """One sample of the policy; its stream is keyed by (seed, prompt id, "base")."""
    return await _whole_response(ask, state, greedy=False)


async def greedy_step(ask: Ledger, state: State, parameters: NoParameters) -> State:
    """The response of likeliest tokens."""
    return await _whole_response(ask, state, greedy=True)


async def _whole_response(ask: Ledger, state: State, greedy: bool) -> State:
    keys = (ask.problem.key("base"),)
    (drawn,) = await ask.sample((), keys, ask.problem.max_new_tokens, greedy=greedy)
    return replace(state, candidates=(Candidate(drawn.token_ids, drawn.finished),))
