"""Best-of-N (section 5.1, appendix C.5): the best of N responses by reward.

``begin`` draws the N samples; the only step scores them. The samples are drawn once and reused for
all scorers and for the voting methods (``vote.py``).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from orchestrator.fields.types import Count
from orchestrator.search.client import MeteredClient
from orchestrator.search.method import SearchMethod, register
from orchestrator.search.problem import Candidate, Problem
from orchestrator.search.state import SearchState


@dataclass(frozen=True)
class SamplesState(SearchState):
    """N responses, with their ``texts`` if a vote needs them."""

    texts: tuple[str, ...] = ()


class IndependentSamplesMethod(SearchMethod[SamplesState]):
    """Selects one of N responses of the policy."""

    n: Count = 16
    """Samples of a prompt, drawn once and shared by all scorers and votes."""

    state_type: ClassVar[type[SearchState]] = SamplesState

    async def begin(self, client: MeteredClient) -> SamplesState:
        """Draw the N samples."""
        return await draw_samples(client, self.n)

    async def step(self, client: MeteredClient, state: SamplesState) -> SamplesState:
        """Score all samples."""
        scores = await client.score((), state.candidates)
        candidates = tuple(
            replace(sample, score=score, step_scores=(score,))
            for sample, score in zip(state.candidates, scores, strict=True)
        )
        return replace(state, candidates=candidates)

    def is_done(self, problem: Problem, state: SamplesState) -> bool:
        """Whether the samples are scored."""
        return state.step > 0

    @property
    def shared_samples(self) -> int:
        """All N."""
        return self.n

    @property
    def candidate_counts(self) -> dict[str, int]:
        """The N samples."""
        return {"n": self.n}


@register
class BestOfN(IndependentSamplesMethod):
    """Best-of-N: of N samples the one with the highest reward (the paper: N = 16 and 64)."""

    name: Literal["bon"] = "bon"

    order: ClassVar[int] = 20
    on_by_default: ClassVar[bool] = True
    has_curve: ClassVar[bool] = True


async def draw_samples(client: MeteredClient, n: int, *, texts: bool = False) -> SamplesState:
    """Draw N responses with the random streams (seed, prompt id, "sample", i), without scores.

    Raises:
        ValueError: ``texts`` are requested, but the policy engine returns none.
    """
    keys = tuple(client.problem.key("sample", i) for i in range(n))
    samples = await client.sample((), keys, client.problem.max_new_tokens, texts=texts)
    decoded = tuple(sample.text for sample in samples if sample.text is not None)
    if texts and len(decoded) < len(samples):
        raise ValueError("a vote needs the samples' texts, and this policy engine returned none")
    candidates = tuple(Candidate(sample.token_ids, sample.finished) for sample in samples)
    return SamplesState(candidates, texts=decoded)
