"""Diverse verifier tree search (DVTS, search-and-learn: Beeching et al. 2024).

N subtrees grow independently, each greedily in the reward, so that one branch with an early high
reward cannot displace all others.
"""

from dataclasses import replace
from typing import ClassVar, Literal

from orchestrator.fields.types import Count, Text
from orchestrator.search.client import MeteredClient
from orchestrator.search.expansion import Expansion, empty_candidates, expand
from orchestrator.search.method import SearchMethod, register
from orchestrator.search.state import SearchState


@register
class DVTS(SearchMethod):
    """Diverse verifier tree search: independent subtrees over steps, each greedy in the reward."""

    name: Literal["dvts"] = "dvts"
    subtrees: Count = 4
    """N, the independent subtrees."""
    candidates: Count = 4
    """K, the candidates for the next step of each subtree."""
    delimiter: Text = "\n"
    """The text that ends a step."""

    order: ClassVar[int] = 71

    async def begin(self, client: MeteredClient) -> SearchState:
        """Return N empty candidates; candidate i is the leaf of subtree i from here on."""
        return empty_candidates(self.subtrees)

    async def step(self, client: MeteredClient, state: SearchState) -> SearchState:
        """Draw K steps from each subtree's leaf and keep the best of them in that subtree."""
        expansion = Expansion(self.name, self.candidates, stops=(self.delimiter,))
        expanded = await expand(client, state, expansion)
        leaves = tuple(client.select(candidates, 1)[0] for candidates in expanded)
        return replace(state, candidates=leaves)

    @property
    def candidate_counts(self) -> dict[str, int]:
        """K candidates of each of N subtrees."""
        return {"subtrees": self.subtrees, "candidates": self.candidates}

    @property
    def step_delimiter(self) -> str | None:
        """The delimiter."""
        return self.delimiter
