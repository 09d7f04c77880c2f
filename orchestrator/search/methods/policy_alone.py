"""The policy without search (the paper's Base): one plain sample, or the greedy response.

Neither requests scores: the response's ``score`` is None.
"""

from dataclasses import replace
from typing import ClassVar, Literal

from orchestrator.search.client import MeteredClient
from orchestrator.search.method import SearchMethod, register
from orchestrator.search.problem import Candidate
from orchestrator.search.state import SearchState

BASELINE = "base"  # the baseline of all comparisons


@register
class Base(SearchMethod):
    """One sample of the policy; its random stream is keyed by (seed, prompt id, "base")."""

    name: Literal["base"] = "base"

    order: ClassVar[int] = 0
    always_runs: ClassVar[bool] = True
    needs_scorer: ClassVar[bool] = False

    async def step(self, client: MeteredClient, state: SearchState) -> SearchState:
        """Sample the full response."""
        return await _full_response(client, state, greedy=False)


@register
class Greedy(SearchMethod):
    """Greedy decoding: the most probable token at each position."""

    name: Literal["greedy"] = "greedy"

    order: ClassVar[int] = 10
    always_runs: ClassVar[bool] = True
    needs_scorer: ClassVar[bool] = False
    samples_policy: ClassVar[bool] = False
    is_random: ClassVar[bool] = False

    async def step(self, client: MeteredClient, state: SearchState) -> SearchState:
        """Decode the full response."""
        return await _full_response(client, state, greedy=True)


async def _full_response(client: MeteredClient, state: SearchState, greedy: bool) -> SearchState:
    keys = (client.problem.key("base"),)
    (sample,) = await client.sample((), keys, client.problem.max_new_tokens, greedy=greedy)
    return replace(state, candidates=(Candidate(sample.token_ids, sample.finished),))
