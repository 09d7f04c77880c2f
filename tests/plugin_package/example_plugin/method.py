"""Longest-of-N: of N samples the longest finished one, whatever a reward model would say."""

from typing import ClassVar, Literal

from orchestrator.search.client import MeteredClient
from orchestrator.search.method import register
from orchestrator.search.methods.best_of_n import IndependentSamplesMethod, SamplesState
from orchestrator.search.problem import Candidate, Problem, competing


@register
class LongestOfN(IndependentSamplesMethod):
    """Of N samples the longest; a control for what a length bias alone would do."""

    name: Literal["longest"] = "longest"

    order: ClassVar[int] = 25
    needs_scorer: ClassVar[bool] = False

    def is_done(self, problem: Problem, state: SamplesState) -> bool:
        """It scores nothing: done once there are samples."""
        return True

    def answer(self, client: MeteredClient, state: SamplesState) -> Candidate:
        """Return the longest sample, the first of equals."""
        return max(competing(state.candidates), key=lambda sample: len(sample.token_ids))
