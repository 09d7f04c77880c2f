"""Both models in one thread: prompts go on by themselves, faults are a prompt's own."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from orchestrator.decoding.backend import ModelBackend
from orchestrator.decoding.bisect import NO_LOGITS
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.records import Response
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.engines import Sampled, SampleRequest, Scored, ScoreRequest
from orchestrator.search.methods.beam import ChunkBeamSearch, StepBeamSearch
from orchestrator.search.methods.policy_alone import Greedy
from orchestrator.search.problem import Problem, PromptFailed
from orchestrator.search.runner import SearchRunner, run_searches
from orchestrator.tasks.helpdesk import agents

MOST = 20  # new tokens
STEPS = StepBeamSearch(beams=2, candidates=3, delimiter="i").run


class Watched(SequenceScorer):
    """A scorer that writes down how many samples are under way when it is asked."""

    policy: HuggingFacePolicy
    beside: list[int]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        self.beside.append(self.policy._batch.live)
        return super().score(requests)


@pytest.fixture(scope="module")
def models(word_policy: str, word_reward: str) -> tuple[HuggingFacePolicy, Watched]:
    """In float64: there a text does not depend on what else is in a batch."""
    policy = HuggingFacePolicy(word_policy, dtype="float64")
    scorer = Watched(word_reward, dtype="float64")
    scorer.policy, scorer.beside = policy, []
    return policy, scorer


@pytest.fixture
def backend(models: tuple[HuggingFacePolicy, Watched]) -> ModelBackend:
    models[0].clear_cache()
    models[1].clear_cache()
    models[1].beside.clear()
    return ModelBackend(lambda: models)


@pytest.fixture(scope="module")
def problems(models: tuple[HuggingFacePolicy, Watched]) -> list[Problem]:
    chat = models[0].chat
    return [
        Problem(p.prompt_id, chat.prompt_ids(p.messages), 0, MOST)
        for p in agents.prompts(6, seed=9)
    ]


class InBatches:
    """The same models, asked for whole batches."""

    def __init__(self, models: tuple[HuggingFacePolicy, Watched]) -> None:
        self._policy, self._scorer = models

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        return self._policy.sample(requests)

    async def top_next_tokens(self, requests: list[Any]) -> list[Any]:
        return self._policy.top_next_tokens(requests)

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        return self._scorer.score(requests)


def texts(responses: Sequence[Response]) -> list[tuple[int, ...]]:
    return [response.token_ids for response in responses]


def test_a_prompt_is_scored_while_others_sample_and_gets_the_same_text(
    models: tuple[HuggingFacePolicy, Watched], backend: ModelBackend, problems: list[Problem]
) -> None:
    found = asyncio.run(run_searches(problems, STEPS, backend))
    assert any(models[1].beside), "no score was asked for while a sample was under way"
    models[1].beside.clear()
    whole = InBatches(models)
    expected = asyncio.run(run_searches(problems, STEPS, BatchBackend(whole, whole)))
    assert not any(models[1].beside)
    assert texts(found) == texts(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.cost.policy_tokens_sampled == other.cost.policy_tokens_sampled
        assert one.cost.policy_calls == other.cost.policy_calls
        assert one.cost.reward_calls == other.cost.reward_calls


def test_the_same_search_twice_asks_for_the_same_at_the_same_times(
    models: tuple[HuggingFacePolicy, Watched], backend: ModelBackend, problems: list[Problem]
) -> None:
    """What goes together is decided by requests and answers, not by the time that they take."""
    seen = []
    for _ in range(2):
        asyncio.run(backend.clear_cache())
        responses = asyncio.run(run_searches(problems, STEPS, backend, max_concurrent=3))
        seen.append((list(models[1].beside), [one.margin for one in responses]))
        models[1].beside.clear()
    assert seen[0] == seen[1]


def test_a_prompt_that_comes_later_does_not_wait_for_the_samples_under_way(
    backend: ModelBackend, problems: list[Problem]
) -> None:
    ended: list[str] = []
    long = ChunkBeamSearch(beams=2, candidates=2, chunk=MOST).run
    short = Greedy().run

    async def either(problem: Problem, policy: Any, reward: Any) -> Response:
        search = short if problem.max_new_tokens == 1 else long
        return await search(problem, policy, reward)

    async def run() -> None:
        runner = SearchRunner(either, backend, max_concurrent=4)

        async def answer(problem: Problem) -> None:
            await runner.answer(problem)
            ended.append(problem.prompt_id)

        first = asyncio.ensure_future(answer(problems[0]))
        while not backend._active:
            await asyncio.sleep(0)
        late = Problem("late", problems[1].prompt_ids, 0, 1)
        await asyncio.gather(first, answer(late))

    asyncio.run(run())
    assert ended == ["late", problems[0].prompt_id]


def test_nan_logits_are_the_fault_of_their_prompt_alone(
    models: tuple[HuggingFacePolicy, Watched], problems: list[Problem]
) -> None:
    """A word of the vocabulary whose embedding is NaN spoils the prompts that hold it."""
    policy, _ = models
    spoiled = set(problems[0].prompt_ids) - set(problems[1].prompt_ids)
    weight = policy.model.get_input_embeddings().weight
    token = sorted(spoiled)[0]
    kept = weight.data[token].clone()
    asked = [p for p in problems if token not in p.prompt_ids]
    expected = texts(asyncio.run(run_searches(asked, STEPS, ModelBackend(lambda: models))))
    failed: list[tuple[str, str]] = []

    def told(problem: Problem, why: PromptFailed) -> None:
        failed.append((problem.prompt_id, str(why)))

    try:
        policy.clear_cache()
        weight.data[token] = torch.nan
        found = asyncio.run(
            run_searches(problems, STEPS, ModelBackend(lambda: models), on_failure=told)
        )
    finally:
        weight.data[token] = kept
        policy.clear_cache()
    bad = [p.prompt_id for p in problems if token in p.prompt_ids]
    fine = {r.prompt_id: r.token_ids for r in found}
    assert {name for name, _ in failed} >= set(bad)
    assert all(why == NO_LOGITS for _, why in failed)
    for problem, ids in zip(asked, expected, strict=True):
        if problem.prompt_id in fine:  # else it drew that word itself
            assert fine[problem.prompt_id] == ids or token in ids


def test_a_run_that_ends_in_the_middle_leaves_nothing_under_way(
    models: tuple[HuggingFacePolicy, Watched], backend: ModelBackend, problems: list[Problem]
) -> None:
    async def breaks(problem: Problem, policy: Any, reward: Any) -> Response:
        if problem is problems[-1]:
            await policy.sample(SampleRequest(problem.prompt_ids, (), (1,), 1))
            raise ValueError("no such token")
        return await STEPS(problem, policy, reward)

    with pytest.raises(ValueError, match="no such token"):
        asyncio.run(run_searches(problems, breaks, backend))
    again = asyncio.run(run_searches(problems, STEPS, backend))
    assert not backend._active and not models[0]._active
    assert texts(again) == texts(asyncio.run(run_searches(problems, STEPS, backend)))
