"""Problems in runner: which batches are sent, what happens on failures, and real engines."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from support.method_examples import example
from support.random_worlds import random_policy, random_reward

from orchestrator.checkpoints.checkpoint import (
    new_policy,
    reward_model_from_policy,
    save_checkpoint,
)
from orchestrator.conversations.tokenizers import word_tokenizer
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.records import Response
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.engines import (
    Ids,
    Policy,
    Reward,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.method import METHODS
from orchestrator.search.methods.args import Args
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.search.methods.policy_alone import Base
from orchestrator.search.problem import NOT_A_NUMBER, Problem, PromptFailed
from orchestrator.search.runner import SearchOf, SearchRunner, run_searches
from orchestrator.search.tabular import TabularPolicy, TabularReward

CBS = ChunkBeamSearch(beams=3, candidates=2, chunk=2).run
PROBLEMS = [Problem(f"p{i}", (i, 9), seed=1, max_new_tokens=4 + i) for i in range(5)]


@dataclass
class Backend:
    """Tabular engines as both backends, with every batch written down; delays are in seconds."""

    delay: float = 0.0
    policy: TabularPolicy = field(default_factory=lambda: random_policy(0, 4))
    reward: TabularReward = field(default_factory=lambda: random_reward(0))
    batches: list[tuple[str, list[Any]]] = field(default_factory=list)

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        self.batches.append(("sample", requests))
        await asyncio.sleep(self.delay)
        return [await self.policy.sample(request) for request in requests]

    async def top_next_tokens(self, requests: list[TopRequest]) -> list[TopTokens]:
        self.batches.append(("top", requests))
        await asyncio.sleep(self.delay)
        return [await self.policy.top_next_tokens(request) for request in requests]

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        self.batches.append(("score", requests))
        await asyncio.sleep(2 * self.delay)
        return [await self.reward.score(request) for request in requests]


def both(backend: Any) -> BatchBackend:
    return BatchBackend(backend, backend)


def wave(
    backend: Any, start: SearchOf[Response] = CBS, problems: Sequence[Problem] = PROBLEMS
) -> list[Response]:
    return asyncio.run(run_searches(problems, start, both(backend)))


def test_what_all_live_problems_ask_goes_in_one_batch_in_their_order() -> None:
    backend = Backend()
    wave(backend)
    kinds = [kind for kind, _ in backend.batches]
    assert kinds == ["sample", "score"] * (len(kinds) // 2)
    assert [r.prompt_ids[0] for r in backend.batches[0][1]] == [0, 1, 2, 3, 4]
    for (_, drawn), (_, scored) in zip(backend.batches[::2], backend.batches[1::2], strict=True):
        asked = [(r.prompt_ids, r.prefix_ids) for r in drawn]
        assert asked == [(r.prompt_ids, r.prefix_ids) for r in scored]
        assert [x[0] for x, _ in asked] == sorted(x[0] for x, _ in asked)
    assert max(len(batch) for _, batch in backend.batches) > len(PROBLEMS)  # the beams of each


def test_batches_do_not_depend_on_how_long_the_engines_take() -> None:
    quick, slow = Backend(), Backend(delay=0.003)
    args = Args(weight=1.0, k=3)

    async def mixed(problem: Problem, policy: Policy, reward: Reward) -> Response:
        search = args.run if problem.prompt_ids[0] % 2 else CBS
        return await search(problem, policy, reward)

    responses = [[r.token_ids for r in wave(backend, mixed)] for backend in (quick, slow)]
    assert responses[0] == responses[1]
    assert quick.batches == slow.batches
    assert {kind for kind, _ in quick.batches} == {"sample", "top", "score"}


def test_requests_of_several_kinds_are_answered_at_the_same_time() -> None:
    meeting = asyncio.Barrier(2)

    class Meeting(Backend):
        async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
            await asyncio.wait_for(meeting.wait(), timeout=300)
            return await super().sample(requests)

        async def top_next_tokens(self, requests: list[TopRequest]) -> list[TopTokens]:
            await asyncio.wait_for(meeting.wait(), timeout=300)
            return await super().top_next_tokens(requests)

    async def both(problem: Problem, policy: Policy, reward: Reward) -> Response:
        search = Base().run
        if problem.prompt_id == "top":
            search = Args(weight=1.0, k=3).run
        return await search(problem, policy, reward)

    problems = [Problem(name, (1,), 0, max_new_tokens=1) for name in ("top", "sample")]
    assert len(wave(Meeting(), both, problems)) == 2


@pytest.mark.parametrize("kind", ["sample", "score"])
def test_a_failing_backend_is_raised_and_nothing_runs_on(kind: str) -> None:
    class Failing(Backend):
        async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
            if kind == "sample" and len(self.batches) >= 2:
                raise RuntimeError("the sample engine died")
            return await super().sample(requests)

        async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
            if kind == "score":
                raise RuntimeError("the score engine died")
            return await super().score(requests)

    async def run() -> None:
        backend = Failing()
        with pytest.raises(RuntimeError, match=f"the {kind} engine died"):
            await run_searches(PROBLEMS, CBS, both(backend), max_concurrent=2, batchers=2)
        sent = len(backend.batches)
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(backend.batches) == sent

    asyncio.run(run())


def test_a_failing_method_is_raised_with_the_prompt_it_worked_on() -> None:
    async def method(problem: Problem, policy: Policy, reward: Reward) -> Response:
        if problem.prompt_id == "p3":
            await policy.top_next_tokens(TopRequest(problem.prompt_ids, (), 1))
            raise ValueError("no such token")
        return await CBS(problem, policy, reward)

    with pytest.raises(ValueError, match="no such token") as caught:
        wave(Backend(), method)
    assert caught.value.__notes__ == ["while answering prompt p3"]


def test_a_backend_that_loses_answers_is_refused() -> None:
    class Losing(Backend):
        async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
            return (await super().score(requests))[1:]

    with pytest.raises(ValueError, match="the backend returned 4 answers to 5 score requests"):
        wave(Losing())


def test_without_a_reward_backend_only_scores_are_refused() -> None:
    policy = Backend()
    base = Base().run
    assert len(asyncio.run(run_searches(PROBLEMS, base, BatchBackend(policy)))) == 5
    with pytest.raises(ValueError, match="score request"):
        asyncio.run(run_searches(PROBLEMS, CBS, BatchBackend(policy)))


def test_progress_names_each_prompt_once_and_results_keep_the_order_of_problems() -> None:
    named: list[str] = []

    def told(response: Response) -> None:
        named.append(response.prompt_id)

    backend = Backend()
    longest_first = PROBLEMS[::-1]
    run = run_searches(
        longest_first,
        CBS,
        both(backend),
        max_concurrent=2,
        on_outcome=told,
        batchers=2,
    )
    responses = asyncio.run(run)
    assert [r.prompt_id for r in responses] == [p.prompt_id for p in longest_first]
    assert sorted(named) == [f"p{i}" for i in range(5)]


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_no_more_waves_than_asked_are_in_flight(in_flight: int) -> None:
    running: set[int] = set()
    most = 0

    async def method(problem: Problem, policy: Policy, reward: Reward) -> Response:
        nonlocal most
        running.add(problem.prompt_ids[0])
        most = max(most, len(running))
        response = await CBS(problem, policy, reward)
        running.discard(problem.prompt_ids[0])
        return response

    backend = Backend(delay=0.001)
    asyncio.run(run_searches(PROBLEMS, method, both(backend), max_concurrent=1, batchers=in_flight))
    assert most == in_flight


def test_a_problems_seconds_are_its_share_of_the_batches_that_it_waited_for() -> None:
    began = time.perf_counter()
    backend = Backend(delay=0.01)
    responses = wave(backend)
    wall = time.perf_counter() - began
    seconds = [response.cost.seconds for response in responses]
    assert 0.03 < sum(seconds) <= wall
    waited = [sum(p in batch for batch in _prompts(backend)) for p in range(len(PROBLEMS))]
    assert len(set(waited)) > 1
    assert [waited[i] for i in sorted(range(5), key=lambda i: seconds[i])] == sorted(waited)


def test_the_seconds_of_waves_that_run_together_sum_up_to_the_wall_time() -> None:
    began = time.perf_counter()
    backend = Backend(delay=0.01)
    responses = asyncio.run(
        run_searches(PROBLEMS, CBS, both(backend), max_concurrent=2, batchers=2)
    )
    wall = time.perf_counter() - began
    assert 0.5 * wall < sum(response.cost.seconds for response in responses) <= wall


def _prompts(backend: Backend, kind: str | None = None) -> list[list[int]]:
    """The first prompt token of each request, by batch."""
    some = [requests for name, requests in backend.batches if kind in (None, name)]
    return [[request.prompt_ids[0] for request in requests] for requests in some]


def test_a_waiting_problem_takes_the_place_of_one_that_ends_at_once() -> None:
    """Its first request goes into the very next batch, beside the later steps of the others."""
    backend = Backend()
    lengths = (2, 6, 2, 2)
    problems = [Problem(f"p{i}", (i, 9), 1, n) for i, n in enumerate(lengths)]
    args = Args(weight=1.0, k=3).run
    responses = asyncio.run(run_searches(problems, args, both(backend), max_concurrent=2))
    left = [len(response.step_scores) for response in responses]
    expected, live, waiting = [], [0, 1], [2, 3]
    while live:
        expected.append(sorted(live))
        for i in live:
            left[i] -= 1
        ended = [i for i in live if not left[i]]
        live = [i for i in live if left[i]] + waiting[: len(ended)]
        waiting = waiting[len(ended) :]
    assert _prompts(backend, "top") == expected
    whole = asyncio.run(run_searches(problems, args, BatchBackend(Backend(), Backend())))
    assert [r.token_ids for r in responses] == [r.token_ids for r in whole]


def test_no_problems_give_no_responses() -> None:
    assert wave(Backend(), problems=[]) == []
    backend = Backend()
    assert asyncio.run(run_searches([], CBS, both(backend), max_concurrent=3, batchers=2)) == []


def nan_for(prompt: int) -> Backend:
    """Engines whose reward of one prompt's texts of more than two tokens is NaN."""
    usual = random_reward(0).value

    def value(prompt_ids: Ids, response_ids: Ids) -> float:
        broken = prompt_ids[0] == prompt and len(response_ids) > 2
        return float("nan") if broken else usual(prompt_ids, response_ids)

    return Backend(reward=TabularReward(value))


@pytest.mark.parametrize("places", [1, 2, None])
def test_a_prompt_that_fails_by_itself_leaves_the_others_as_they_are(places: int | None) -> None:
    failed: list[tuple[str, str]] = []
    expected = {r.prompt_id: r.token_ids for r in wave(Backend())}

    def told(problem: Problem, why: PromptFailed) -> None:
        failed.append((problem.prompt_id, str(why)))

    backend = nan_for(2)
    found = asyncio.run(
        run_searches(PROBLEMS, CBS, both(backend), max_concurrent=places, on_failure=told)
    )
    assert failed == [("p2", NOT_A_NUMBER)]
    del expected["p2"]
    assert {r.prompt_id: r.token_ids for r in found} == expected
    with pytest.raises(PromptFailed, match="NaN") as caught:
        wave(nan_for(2))
    assert caught.value.__notes__ == ["while answering prompt p2"]


def test_a_backend_may_answer_one_request_with_its_fault() -> None:
    class Small(Backend):
        async def sample(self, requests: list[SampleRequest]) -> list[Any]:
            found = await super().sample(requests)
            return [PromptFailed("no room") if r.prompt_ids[0] == 1 else one
                    for r, one in zip(requests, found, strict=True)]  # fmt: skip

    failed: list[str] = []
    backend = Small()
    found = asyncio.run(
        run_searches(
            PROBLEMS, CBS, both(backend), max_concurrent=2,
            on_failure=lambda problem, why: failed.append(f"{problem.prompt_id}: {why}"),
            batchers=2,
        )
    )  # fmt: skip
    assert [r.prompt_id for r in found] == ["p0", "p2", "p3", "p4"]
    assert failed == ["p1: no room"]


def test_problems_are_read_one_by_one_as_places_become_free() -> None:
    read, ended = 0, 0

    def endless() -> Iterator[Problem]:
        nonlocal read
        for problem in PROBLEMS * 3:
            assert read - ended <= 2  # the one that ends is told of when the next is there
            read += 1
            yield problem

    def told(response: Response) -> None:
        nonlocal ended
        ended += 1

    backend = Backend()
    found = asyncio.run(
        run_searches(endless(), CBS, both(backend), max_concurrent=2, on_outcome=told)
    )
    assert len(found) == read == ended == 3 * len(PROBLEMS)


def test_problems_that_come_at_any_time_are_answered_as_in_one_wave() -> None:
    expected = {r.prompt_id: r.token_ids for r in wave(Backend())}

    async def run() -> None:
        backend = nan_for(2)
        runner = SearchRunner(CBS, both(backend), max_concurrent=2)
        for _ in range(2):  # between the rounds nothing is asked
            some = [asyncio.ensure_future(runner.answer(p)) for p in PROBLEMS[:4]]
            await asyncio.sleep(0.001)
            late = asyncio.ensure_future(runner.answer(PROBLEMS[4]))
            found = await asyncio.gather(*some, late, return_exceptions=True)
            assert isinstance(found.pop(2), PromptFailed)
            answered = {r.prompt_id: r.token_ids for r in found if isinstance(r, Response)}
            assert answered == {n: ids for n, ids in expected.items() if n != "p2"}
        assert _prompts(backend)[0] == [0, 1], "problems that come together begin together"

    asyncio.run(run())


def test_an_engine_that_dies_is_raised_in_all_who_wait_for_it() -> None:
    class Failing(Backend):
        async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
            raise RuntimeError("the score engine died")

    async def run() -> None:
        backend = Failing()
        runner = SearchRunner(CBS, both(backend), max_concurrent=2)
        found = await asyncio.gather(*map(runner.answer, PROBLEMS), return_exceptions=True)
        assert [str(error) for error in found] == ["the score engine died"] * len(PROBLEMS)

    asyncio.run(run())


@dataclass
class RealEngines:
    """Hugging Face engines as backends."""

    policy: HuggingFacePolicy
    reward: SequenceScorer

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        return self.policy.sample(requests)

    async def top_next_tokens(self, requests: list[TopRequest]) -> list[TopTokens]:
        return self.policy.top_next_tokens(requests)

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        return self.reward.score(requests)


@pytest.fixture(scope="module")
def real_engines(tmp_path_factory: pytest.TempPathFactory) -> RealEngines:
    """A random tiny Llama policy and a reward model with a random head, as checkpoints on disk."""
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("checkpoints")
    tokenizer = word_tokenizer(["red", "green", "blue", "stop"])
    architecture = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
    }  # fmt: skip
    save_checkpoint(new_policy(tokenizer, architecture, seed=0), tokenizer, folder / "policy")
    reward_model = reward_model_from_policy(str(folder / "policy"), seed=1)
    torch.nn.init.normal_(reward_model.get_parameter("score.weight"))
    save_checkpoint(reward_model, tokenizer, folder / "reward")
    policy = HuggingFacePolicy(str(folder / "policy"))
    return RealEngines(policy, SequenceScorer(str(folder / "reward")))


SCORED = [name for name, method in METHODS.items() if method.needs_scorer]


@pytest.mark.parametrize("name", SCORED)
def test_methods_run_to_the_end_on_real_models(real_engines: RealEngines, name: str) -> None:
    chat = real_engines.policy.chat
    texts = ["red green", "blue", "stop red blue green"]
    problems = [
        Problem(text, chat.prompt_ids([{"role": "user", "content": text}]), 0, 24) for text in texts
    ]
    responses = wave(real_engines, example(name, delimiter="r").run, problems)
    if METHODS[name].samples_policy:  # no argmax of random weights need ever be the end
        assert any(response.stop == "end" for response in responses)
    for problem, response in zip(problems, responses, strict=True):
        assert response.stop == "end" or len(response.token_ids) == problem.max_new_tokens
        whole = ScoreRequest(problem.prompt_ids, response.token_ids, ((),))
        (rescored,) = real_engines.reward.score([whole])
        assert response.score == pytest.approx(rescored.scores[0], abs=1e-4)
        cost = response.cost
        assert cost.policy_tokens_computed > 0 and cost.reward_tokens_computed > 0
        assert cost.policy_calls > 0 and cost.reward_calls > 0 and cost.seconds > 0
