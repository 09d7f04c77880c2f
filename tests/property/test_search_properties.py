"""Search methods over random tabular worlds: against brute force, and free of batch and order."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.method_examples import examples
from support.random_worlds import random_policy, random_reward

from orchestrator.randomness import generator, stream_key
from orchestrator.records import Response
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.engines import (
    Ids,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.search.problem import Problem
from orchestrator.search.runner import run_searches
from orchestrator.search.tabular import TabularPolicy, TabularReward

SEEDS = st.integers(0, 2**32)


def slow_beams(
    problem: Problem, policy: TabularPolicy, reward: TabularReward, width: int, k: int, chunk: int
) -> tuple[Ids, bool]:
    """Algorithm 3 with every chunk drawn and scored by itself, W copies of the empty prefix."""
    limit = problem.max_new_tokens
    beams: list[tuple[Ids, bool]] = [((), False)] * width
    for step in range(limit):
        pool: list[tuple[Ids, bool]] = []
        for beam, (path, done) in enumerate(beams):
            if done or len(path) == limit:
                pool.append((path, done))
                continue
            for candidate in range(k):
                key = stream_key(problem.seed, problem.prompt_id, "cbs", step, beam, candidate)
                length = min(chunk, limit - len(path))
                request = SampleRequest(problem.prompt_ids, path, (key,), length)
                (piece,) = asyncio.run(policy.sample(request)).continuations
                pool.append((path + piece.token_ids, piece.stop == "end"))
        values = [reward.value(problem.prompt_ids, path) for path, _ in pool]
        order = sorted(range(len(pool)), key=lambda i: (-values[i], i))
        beams = [pool[i] for i in order[:width]]
    finished = [beam for beam in beams if beam[1]]
    return (finished or beams)[0]


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(1, 4), st.integers(2, 4), st.booleans())
def test_chunk_beams_equal_algorithm_3_written_out(
    seed: int, width: int, k: int, chunk: int, coarse: bool
) -> None:
    policy, reward = random_policy(seed, 4), random_reward(seed)
    if coarse:  # few different scores: ties everywhere
        reward = TabularReward(lambda x, y: float(sum(y) % 2))
    problem = Problem("p", (5, 6), seed, max_new_tokens=6)
    parameters = ChunkBeamSearch(beams=width, candidates=k, chunk=chunk)
    response = asyncio.run(parameters.run(problem, policy, reward))
    path, finished = slow_beams(problem, policy, reward, width, k, chunk)
    assert (response.token_ids, response.stop == "end") == (path, finished)


class Batches:
    """Tabular engines as backends."""

    def __init__(self, seed: int) -> None:
        self.policy, self.reward = random_policy(seed, 4), random_reward(seed)

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        return [await self.policy.sample(request) for request in requests]

    async def top_next_tokens(self, requests: list[TopRequest]) -> list[TopTokens]:
        return [await self.policy.top_next_tokens(request) for request in requests]

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        return [await self.reward.score(request) for request in requests]


EXAMPLES = examples()


def same_but_seconds(response: Response) -> tuple[Any, ...]:
    cost = response.cost
    counts = (cost.policy_tokens_sampled, cost.policy_tokens_computed, cost.reward_tokens_computed)
    calls = (cost.policy_calls, cost.reward_calls)
    return response.token_ids, response.stop, response.score, response.step_scores, counts, calls


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(sorted(EXAMPLES)), st.integers(1, 12), st.integers(1, 3))
def test_max_concurrent_and_order_change_no_response(
    seed: int, name: str, max_concurrent: int, in_flight: int
) -> None:
    problems = [Problem(f"p{i}", (i, 50), seed, max_new_tokens=5) for i in range(9)]
    search, engines = EXAMPLES[name].run, Batches(seed)
    alone = {
        problem.prompt_id: same_but_seconds(
            asyncio.run(search(problem, engines.policy, engines.reward))
        )
        for problem in problems
    }
    shuffled = [problems[i] for i in generator(seed, "order").permutation(9)]
    responses = asyncio.run(
        run_searches(
            shuffled,
            search,
            BatchBackend(engines, engines),
            max_concurrent=max_concurrent,
            batchers=in_flight,
        )
    )
    assert [response.prompt_id for response in responses] == [p.prompt_id for p in shuffled]
    assert {r.prompt_id: same_but_seconds(r) for r in responses} == alone
