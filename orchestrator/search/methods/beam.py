"""Beam search: CBS and TBS (Algorithm 3, Zhou et al. 2024), and beams over reasoning steps.

All are Algorithm 1 with W beams: over chunks of L tokens, over tokens, or over steps up to a
delimiter, as in search-and-learn (Beeching et al. 2024).
"""

from typing import Annotated, ClassVar, Literal

from orchestrator.fields.types import Count, Integer, Text
from orchestrator.search.client import MeteredClient
from orchestrator.search.expansion import Expansion, empty_candidates, keep_best
from orchestrator.search.method import SearchMethod, register
from orchestrator.search.state import SearchState

SECONDS_PER_CANDIDATE, SECONDS_PER_TOKEN = 0.00015, 0.0001


class BeamSearch(SearchMethod):
    """W beams, each expanded by K candidates, of which the best W are selected.

    Finished beams compete unchanged.
    """

    beams: Count
    candidates: Count

    async def begin(self, client: MeteredClient) -> SearchState:
        """Return W empty beams."""
        return empty_candidates(self.beams)

    async def step(self, client: MeteredClient, state: SearchState) -> SearchState:
        """Draw K continuations of each beam and keep the best W of all."""
        return await keep_best(client, state, self.expansion, self.beams)

    @property
    def expansion(self) -> Expansion:
        """How a beam is expanded."""
        raise NotImplementedError

    @property
    def candidate_counts(self) -> dict[str, int]:
        """Factors of the number of candidates per prompt: W beams with K candidates each."""
        return {"beams": self.beams, "candidates": self.candidates}


@register
class ChunkBeamSearch(BeamSearch):
    """CBS (Algorithm 3): beam search over chunks of L tokens (C.5: 8 beams, 8 candidates, 30)."""

    name: Literal["cbs"] = "cbs"
    beams: Count = 8
    """W, the beams kept after a step."""
    candidates: Count = 8
    """K, the continuations drawn from each beam."""
    chunk: Count = 30
    """L, the tokens of a chunk."""

    order: ClassVar[int] = 41
    on_by_default: ClassVar[bool] = True

    @property
    def expansion(self) -> Expansion:
        """K chunks of L tokens."""
        return Expansion(self.name, self.candidates, self.chunk)

    def seconds(self, tokens: float) -> float:
        """Estimate the seconds per prompt.

        A cost per candidate and chunk, plus a cost per sampled token.
        """
        per_token = SECONDS_PER_CANDIDATE / self.chunk + SECONDS_PER_TOKEN
        return self.beams * self.candidates * tokens * per_token


@register
class TokenBeamSearch(ChunkBeamSearch):
    """TBS: beam search token by token, which is CBS with chunks of one token."""

    name: Literal["tbs"] = "tbs"  # type: ignore[assignment]
    chunk: Annotated[Literal[1], Integer] = 1
    """Always 1."""

    order: ClassVar[int] = 40


@register
class StepBeamSearch(BeamSearch):
    """Beam search over reasoning steps, which end with the delimiter and are never empty."""

    name: Literal["step_beam"] = "step_beam"
    beams: Count = 4
    """W, the beams kept after a step."""
    candidates: Count = 4
    """K, the steps drawn from each beam."""
    delimiter: Text = "\n"
    """The text that ends a step."""

    order: ClassVar[int] = 70

    @property
    def expansion(self) -> Expansion:
        """K steps."""
        return Expansion(self.name, self.candidates, stops=(self.delimiter,))

    @property
    def step_delimiter(self) -> str | None:
        """The delimiter."""
        return self.delimiter
