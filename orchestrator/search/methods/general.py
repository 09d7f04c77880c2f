"""Algorithm 1 (section 4.2): reward-guided search at any granularity.

The policy engine detects where a sentence or a step ends, so no tokenizer is needed here.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from orchestrator.fields.types import Count, Text
from orchestrator.search.client import MeteredClient
from orchestrator.search.expansion import Expansion, empty_candidates, keep_best
from orchestrator.search.method import SearchMethod, register
from orchestrator.search.state import SearchState

Granularity = Literal["token", "chunk", "sentence", "step", "response"]
SENTENCE_ENDS = (
    ".",
    "!",
    "?",
    "\n",
)  # a stop within a number also ends a continuation, which is harmless


@register
class GeneralSearch(SearchMethod):
    """Algorithm 1: reward-guided search over tokens, chunks, sentences, steps or responses."""

    name: Literal["general"] = "general"
    granularity: Granularity = "sentence"
    """The unit that is drawn and scored; a sentence ends with ``.``, ``!``, ``?`` or a line end."""
    sequences: Count = 4
    """N, the sequences kept after a step."""
    candidates: Count = 4
    """K, the continuations drawn from each sequence."""
    chunk: Count = 30
    """Tokens of a chunk, for granularity chunk."""
    delimiter: Text = "\n"
    """The text that ends a step, for granularity step."""

    order: ClassVar[int] = 60

    async def begin(self, client: MeteredClient) -> SearchState:
        """Return N empty sequences."""
        return empty_candidates(self.sequences)

    async def step(self, client: MeteredClient, state: SearchState) -> SearchState:
        """Draw K continuations of each sequence, keep the best N (Algorithm 1, lines 5-10)."""
        expansions: dict[Granularity, Expansion] = {
            "token": Expansion(self.name, self.candidates, 1),
            "chunk": Expansion(self.name, self.candidates, self.chunk),
            "sentence": Expansion(self.name, self.candidates, stops=SENTENCE_ENDS),
            "step": Expansion(self.name, self.candidates, stops=(self.delimiter,)),
            "response": Expansion(self.name, self.candidates),
        }
        return await keep_best(client, state, expansions[self.granularity], self.sequences)

    @property
    def candidate_counts(self) -> dict[str, int]:
        """K candidates of each of N sequences."""
        return {"sequences": self.sequences, "candidates": self.candidates}

    @property
    def step_delimiter(self) -> str | None:
        """The delimiter, for granularity step."""
        return self.delimiter if self.granularity == "step" else None

    @property
    def unused_fields(self) -> Mapping[str, tuple[str, str]]:
        """The fields of other granularities."""
        reason = f"granularity {self.granularity!r} does not use it"
        return {
            field: (reason, f"granularity {user}")
            for field, user in {"chunk": "chunk", "delimiter": "step"}.items()
            if self.granularity != user
        }
