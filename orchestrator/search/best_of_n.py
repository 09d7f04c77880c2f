"""Best-of-N (section 5.1, appendix C.5): N whole responses, the best one by reward.

The N samples may be drawn once and given to many scorers: ``draw_samples``, then
``best_of_samples`` with each. Knows no scorer but as an engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.records import Cost, Response
from orchestrator.search.engines import Continuation, Policy, Reward
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate, Problem, ranked
from orchestrator.search.vote import weighted_choice


@dataclass(frozen=True)
class BestOfNParameters:
    """``n`` samples, at least 1 (the paper: 16 and 64)."""

    n: int = 16


@dataclass(frozen=True)
class Drawn:
    """The N samples of a prompt, not yet scored, and what drawing them cost."""

    prompt_id: str
    continuations: tuple[Continuation, ...]
    cost: Cost


async def draw_samples(
    problem: Problem, policy: Policy, reward: Reward, parameters: BestOfNParameters
) -> Drawn:
    """Draws N responses with the streams (seed, prompt id, "sample", i); asks for no score."""
    ask = Ledger(problem, policy, reward)
    keys = tuple(problem.key("sample", i) for i in range(parameters.n))
    continuations = await ask.sample((), keys, problem.max_new_tokens)
    return Drawn(problem.prompt_id, continuations, ask.cost)


async def best_of_samples(
    problem: Problem, policy: Policy, reward: Reward, drawn: Drawn
) -> Response:
    """The best by reward of samples that were drawn before, truncated ones among them.

    The cost is that of drawing all of them (as if drawn for this scorer alone) and of the scores.
    """
    ask = Ledger(problem, policy, reward)
    ask.cost += drawn.cost
    scores = await ask.score((), tuple(sample.token_ids for sample in drawn.continuations))
    return ask.response(best_candidate(drawn.continuations, scores))


def best_candidate(samples: Sequence[Continuation], scores: Sequence[float]) -> Candidate:
    """The best of scored samples, truncated ones among them; of equal ones the first."""
    scored = zip(samples, scores, strict=True)
    return ranked(Candidate().extended(sample, score) for sample, score in scored)[0]


async def weighted_of_samples(
    problem: Problem, policy: Policy, reward: Reward, drawn: Drawn, answers: Sequence[str | None]
) -> Response:
    """Weighted best-of-N: the best sample of the answer with the most summed reward.

    ``answers`` are the samples' extracted answers, in their order.
    """
    ask = Ledger(problem, policy, reward)
    ask.cost += drawn.cost
    scores = await ask.score((), tuple(sample.token_ids for sample in drawn.continuations))
    chosen = weighted_choice(answers, scores)
    return ask.response(Candidate().extended(drawn.continuations[chosen], scores[chosen]))


async def majority_of_samples(
    problem: Problem, policy: Policy, reward: Reward, drawn: Drawn, answers: Sequence[str | None]
) -> Response:
    """Majority vote: the first sample of the most frequent answer; no score is asked for."""
    ask = Ledger(problem, policy, reward)
    ask.cost += drawn.cost
    sample = drawn.continuations[weighted_choice(answers)]
    return ask.response(Candidate(sample.token_ids, sample.stop == "end"))


async def best_of_n(
    problem: Problem, policy: Policy, reward: Reward, parameters: BestOfNParameters
) -> Response:
    """Draws N responses and returns the best by reward."""
    drawn = await draw_samples(problem, policy, reward, parameters)
    return await best_of_samples(problem, policy, reward, drawn)
