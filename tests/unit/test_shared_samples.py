"""Best-of-n out of N shared samples: the answer and the cost of a run that drew n, by hand too."""

import asyncio
import itertools
from dataclasses import replace

import pytest

from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.records import Cost, Response
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import (
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.methods.best_of_n import BestOfN, SamplesState
from orchestrator.search.problem import Candidate, Problem
from orchestrator.search.shared_samples import (
    ScoredSamples,
    best_of_first,
    curve_sizes,
    first_samples,
    score_samples,
)


class Engines:
    """Real models as both engines of one problem."""

    def __init__(self, policy: str, spec: ScorerSpec) -> None:
        self.policy, self.scorer = HuggingFacePolicy(policy), load_scorer(spec)

    async def sample(self, request: SampleRequest) -> Sampled:
        self.policy.clear_cache()
        return self.policy.sample([request])[0]

    async def top_next_tokens(self, request: TopRequest) -> TopTokens:
        return self.policy.top_next_tokens([request])[0]

    async def score(self, request: ScoreRequest) -> Scored:
        self.scorer.clear_cache()
        return self.scorer.score([request])[0]


def problem_of(engines: Engines) -> Problem:
    ids = engines.policy.chat.prompt_ids([{"role": "user", "content": "the kettle leaks ."}])
    return Problem("p0", ids, 4, 14)


async def judged_of(engines: Engines, problem: Problem, n: int) -> ScoredSamples:
    drawn = await BestOfN(n=n).initial(problem, engines, engines)
    assert isinstance(drawn, SamplesState)
    return await score_samples(problem, engines, engines, drawn)


def best_of(engines: Engines, problem: Problem, n: int) -> Response:
    search = BestOfN(n=n).run
    return asyncio.run(search(problem, engines, engines))


def without_time(response: Response) -> Response:
    return replace(response, cost=replace(response.cost, seconds=0.0))


def test_each_point_is_the_run_that_drew_so_many(word_policy: str, word_reward: str) -> None:
    """Text, score and every count, a prompt's tokens once."""
    engines = Engines(word_policy, ScorerSpec(word_reward))
    problem = problem_of(engines)
    judged = asyncio.run(judged_of(engines, problem, 9))
    answers = set()
    for n in (1, 2, 5, 8, 9):
        alone = best_of(engines, problem, n)
        mine = without_time(best_of_first(judged, n))
        assert mine.score == pytest.approx(alone.score, abs=1e-5)
        assert mine.margin <= alone.margin + 1e-5, "all samples were drawn, and the nearest counts"
        same = replace(alone, score=mine.score, step_scores=mine.step_scores, margin=mine.margin)
        assert mine == same, n
        answers.add(mine.token_ids)
    assert len(answers) > 1


def test_a_log_ratios_points_cost_as_much_on_average(word_policy: str, word_reward: str) -> None:
    engines = Engines(word_policy, ScorerSpec(word_policy, base=word_policy))
    problem = problem_of(engines)
    judged = asyncio.run(judged_of(engines, problem, 6))
    whole = best_of(engines, problem, 6).cost
    assert replace(best_of_first(judged, 6).cost, seconds=0.0) == whole
    # Two models read the prompt once for six samples.
    assert whole.reward_tokens_reused == 2 * 5 * len(problem.prompt_ids)
    half = best_of(engines, problem, 3).cost
    found = best_of_first(judged, 3).cost
    assert found.reward_tokens_reused == half.reward_tokens_reused
    assert found.reward_tokens_computed == pytest.approx(half.reward_tokens_computed, rel=0.25)


def test_costs_by_hand() -> None:
    """A prompt of 10 tokens; samples of 4 (ended), 6 (at the limit), 4 (the first's again), 1."""
    samples = (
        Candidate((1, 2, 3, 4), True),
        Candidate((1, 2, 3, 4, 5, 6)),
        Candidate((1, 2, 3, 4), True),
        Candidate((7,), True),
    )
    drawing = Cost(5 + 6 + 5 + 2, 10 + 4 + 5 + 4 + 1, policy_calls=1, seconds=2.4)
    drawn = SamplesState(samples, cost=drawing)
    # Scored are three different texts, each with a closing token behind it.
    scoring = Cost(
        reward_tokens_computed=10 + 5 + 7 + 2, reward_tokens_reused=20, reward_calls=1, seconds=0.24
    )
    scores = (1.0, 3.0, 1.0, 2.0)
    scored = tuple(replace(one, score=r) for one, r in zip(samples, scores, strict=True))
    judged = ScoredSamples("p0", drawn, scored, scoring)
    for n, token_ids, sampled, computed, read, reused in (
        (1, (1, 2, 3, 4), 5, 14, 15, 0),
        (2, (1, 2, 3, 4), 11, 19, 22, 10),
        (3, (1, 2, 3, 4), 16, 23, 22, 10),
        (4, (7,), 18, 24, 24, 20),
    ):
        response = best_of_first(judged, n)
        assert response.token_ids == token_ids
        assert response.cost.seconds == pytest.approx(2.4 * computed / 24 + 0.24 * read / 24)
        assert replace(response.cost, seconds=0.0) == Cost(
            sampled, computed, read, reused, 1, 1, 0.0
        )
    assert first_samples(drawn, 4) is drawn and first_samples(drawn, 9) is drawn


def test_the_sizes_of_a_curve_are_all_at_first_and_then_an_eighth_apart() -> None:
    assert curve_sizes(1) == [1] and curve_sizes(6) == [1, 2, 3, 4, 5, 6]
    assert curve_sizes(19) == [*range(1, 17), 18, 19]
    sizes = curve_sizes(1000)
    assert {2**k for k in range(10)} <= set(sizes) and sizes[-1] == 1000 and len(sizes) < 80
    assert all(b - a <= a / 8 for a, b in itertools.pairwise(sizes) if a >= 8)
