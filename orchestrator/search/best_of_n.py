"""Best-of-N (section 5.1, appendix C.5): N whole responses, the best one by reward.

The N samples are the method's state before its one step, which scores them: drawn once, that state
may be given to many scorers and to the votes (``vote.py``).
"""

from dataclasses import dataclass, replace

from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate, Problem
from orchestrator.search.state import State


@dataclass(frozen=True)
class BestOfNParameters:
    """``n`` samples, at least 1 (the paper: 16 and 64)."""

    n: int = 16


@dataclass(frozen=True)
class SamplesState(State):
    """N whole responses; ``texts`` are theirs, where a vote needs them, else there are none."""

    texts: tuple[str, ...] = ()


async def draw_samples(
    ask: Ledger, parameters: BestOfNParameters, *, texts: bool = False
) -> SamplesState:
    """Draws N responses with the streams (seed, prompt id, "sample", i); asks for no score.

    Raises:
        ValueError: ``texts`` are wanted of a policy engine that gives none.
    """
    keys = tuple(ask.problem.key("sample", i) for i in range(parameters.n))
    drawn = await ask.sample((), keys, ask.problem.max_new_tokens, texts=texts)
    known = tuple(one.text for one in drawn if one.text is not None)
    if texts and len(known) < len(drawn):
        raise ValueError("a vote needs the samples' texts, and this policy engine gave none")
    samples = tuple(Candidate(one.token_ids, one.finished) for one in drawn)
    return SamplesState(samples, texts=known)


async def score_samples(
    ask: Ledger, state: SamplesState, parameters: BestOfNParameters
) -> SamplesState:
    """Scores all samples; the answer is the best one."""
    scores = await ask.score((), state.candidates)
    scored = zip(state.candidates, scores, strict=True)
    candidates = tuple(
        replace(sample, score=score, step_scores=(score,)) for sample, score in scored
    )
    return replace(state, candidates=candidates)


def are_scored(problem: Problem, state: SamplesState) -> bool:
    """Whether the one step is done."""
    return state.step > 0
