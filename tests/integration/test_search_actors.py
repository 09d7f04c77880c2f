"""Search under Ray: the same responses as in one process, also when actors are killed or hang."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from conftest import NAN_WORD, own_ray
from ray.exceptions import RayActorError

from actors.backends import ActorPolicy, ActorReward
from actors.health import Health
from actors.policy import PolicyActor, PolicySpec
from actors.pool import PoolIsDead
from actors.reward import RewardActor, RewardSpec
from actors.search import ModelEngines, Outcome, Search, SearchActor
from actors.search_stream import Growth, search_all, stream
from orchestrator.conversations.chat import load_chat
from orchestrator.records import Response
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.search.problem import NOT_A_NUMBER, Problem, PromptFailed
from orchestrator.search.runner import run_searches
from orchestrator.tasks.helpdesk import agents

PROMPTS, PLACES = 200, 8
CBS = Search(ChunkBeamSearch(beams=2, candidates=3, chunk=4), PLACES)
START = CBS.method.run
KILLED_AT = PROMPTS // 4
Text = tuple[int, ...]
pytestmark = pytest.mark.slow  # test_search_stream.py tests the same without Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with own_ray():
        yield


def engines(policy: str, reward: str) -> ModelEngines:
    """In float64: there a text does not depend on what else is in a batch."""
    return ModelEngines(
        PolicySpec(policy, 1.0, 1.0, "cpu", 1, dtype="float64"),
        RewardSpec(ScorerSpec(reward), "closed", policy, "cpu", 1, "float64"),
    )


@pytest.fixture(scope="module")
def problems(word_policy: str) -> list[Problem]:
    chat = load_chat(word_policy)
    prompts = agents.prompts(PROMPTS, seed=4)
    return [Problem(p.prompt_id, chat.prompt_ids(p.messages), 0, 16) for p in prompts]


@pytest.fixture(scope="module")
def undisturbed(word_policy: str, word_reward: str, problems: list[Problem]) -> dict[str, Text]:
    """Token ids by prompt, without Ray."""
    backend = engines(word_policy, word_reward).load()
    return texts(asyncio.run(run_searches(problems, START, backend, max_concurrent=PLACES)))


def texts(responses: list[Response]) -> dict[str, Text]:
    return {response.prompt_id: response.token_ids for response in responses}


def actors(count: int, of: ModelEngines, **options: Any) -> list[Any]:
    return [
        SearchActor.options(num_cpus=0.1, **options).remote(of)  # type: ignore[attr-defined]
        for _ in range(count)
    ]


def stopping(processes: list[int], told: list[str], how: int) -> Callable[[Response], None]:
    """Counts responses; signals the processes in the middle."""

    def finished(response: Response) -> None:
        told.append(response.prompt_id)
        if len(told) == KILLED_AT:
            for process in processes:
                os.kill(process, how)

    return finished


def test_one_search_actor_of_two_is_killed_and_all_responses_are_as_if_it_were_not(
    word_policy: str,
    word_reward: str,
    problems: list[Problem],
    undisturbed: dict[str, Text],
    cluster: None,
) -> None:
    pair = actors(2, engines(word_policy, word_reward))
    _, process = ray.get(pair[0].node_and_pid.remote())
    told: list[str] = []
    finished = stopping([process], told, signal.SIGKILL)
    found = asyncio.run(search_all(pair, CBS, problems, finished))
    assert sorted(told) == sorted(problem.prompt_id for problem in problems)
    assert [response.prompt_id for response in found] == [p.prompt_id for p in problems]
    assert texts(found) == undisturbed
    assert ray.get(pair[0].node_and_pid.remote())[1] != process, "Ray started it again"


def test_a_search_actor_that_hangs_is_ended_and_all_responses_are_as_if_it_had_not(
    word_policy: str,
    word_reward: str,
    problems: list[Problem],
    undisturbed: dict[str, Text],
    cluster: None,
) -> None:
    pair = actors(2, engines(word_policy, word_reward))
    _, process = ray.get(pair[1].node_and_pid.remote())
    told: list[str] = []
    said: list[str] = []

    async def with_one_that_hangs() -> list[Response]:
        responses = []
        finished = stopping([process], told, signal.SIGSTOP)
        health = Health(interval=0.1, timeout=3)
        async for _, outcome in stream(pair, CBS, enumerate(problems), health, said.append):
            assert isinstance(outcome, Response)
            finished(outcome)
            responses.append(outcome)
        return responses

    found = asyncio.run(with_one_that_hangs())
    assert len(found) == PROMPTS and texts(found) == undisturbed
    assert said == [
        f"search actor (process {process}) did not answer a health check for 3 s; restarting it"
    ]


def grown(
    pool: list[Any], problems: list[Problem], growth: Growth, said: list[str]
) -> dict[str, Text]:
    """The texts of a pool that may grow; ``said`` takes what it tells."""

    async def run() -> list[Response]:
        found = stream(pool, CBS, enumerate(problems), notify=said.append, growth=growth)
        return [outcome async for _, outcome in found if isinstance(outcome, Response)]

    return texts(asyncio.run(run()))


def test_a_pool_grows_while_prompts_wait_and_no_further(
    word_policy: str,
    word_reward: str,
    problems: list[Problem],
    undisturbed: dict[str, Text],
    cluster: None,
) -> None:
    of = engines(word_policy, word_reward)
    pool, said = actors(1, of), list[str]()

    def start() -> Any:
        pool.extend(actors(1, of))
        return pool[-1]

    growth = Growth(start, max_actors=2, interval=0.01)
    assert grown(pool[:1], problems, growth, said) == undisturbed
    assert len(pool) == 2 and said == ["prompts are waiting: added a search actor, now 2"]


def test_an_actor_that_found_no_room_is_not_waited_for(
    word_policy: str,
    word_reward: str,
    problems: list[Problem],
    undisturbed: dict[str, Text],
    cluster: None,
) -> None:
    of = engines(word_policy, word_reward)
    pool, asked = actors(1, of), list[Any]()

    def start() -> Any:
        asked.append(SearchActor.options(num_cpus=64).remote(of))  # type: ignore[attr-defined]
        return asked[-1]

    assert grown(pool, problems, Growth(start, max_actors=4, interval=0.01), []) == undisturbed
    (actor,) = asked
    with pytest.raises(RayActorError):
        ray.get(actor.node_and_pid.remote(), timeout=600)


def test_a_pool_whose_further_actor_fails_goes_on_and_says_so(
    word_policy: str,
    word_reward: str,
    problems: list[Problem],
    undisturbed: dict[str, Text],
    cluster: None,
) -> None:
    pool, said = actors(1, engines(word_policy, word_reward)), list[str]()
    growth = Growth(
        lambda: actors(1, engines("/no/policy", word_reward))[0], max_actors=3, interval=0.01
    )

    assert grown(pool, problems, growth, said) == undisturbed
    (told,) = said
    assert told.startswith("could not start a further search actor: ") and "/no/policy" in told


def test_one_actor_of_each_pool_is_killed_and_all_responses_are_as_if_they_were_not(
    word_policy: str,
    word_reward: str,
    problems: list[Problem],
    undisturbed: dict[str, Text],
    cluster: None,
) -> None:
    places = engines(word_policy, word_reward)
    assert places.reward is not None
    pools = [
        [of.options(num_cpus=0.1).remote() for _ in range(2)]  # type: ignore[union-attr]
        for of in (PolicyActor, RewardActor)
    ]
    policy = ActorPolicy(pools[0], places.policy)
    reward = ActorReward(pools[1], places.reward, load_chat(word_reward))
    told: list[str] = []
    processes = [ray.get(pool[0].pid.remote()) for pool in pools]
    finished = stopping(processes, told, signal.SIGKILL)
    found = asyncio.run(
        run_searches(
            problems,
            START,
            BatchBackend(policy, reward),
            max_concurrent=PLACES,
            on_outcome=finished,
            batchers=2,
        )
    )
    assert sorted(told) == sorted(problem.prompt_id for problem in problems)
    assert texts(found) == undisturbed
    for pool, process in zip(pools, processes, strict=True):
        assert ray.get(pool[0].pid.remote()) != process, "Ray started it again"


def test_what_an_actor_that_is_gone_for_good_had_goes_to_the_other_one_and_then_to_nobody(
    word_policy: str,
    nan_reward: str,
    problems: list[Problem],
    undisturbed: dict[str, Text],
    cluster: None,
) -> None:
    pair = actors(2, engines(word_policy, nan_reward), max_restarts=0, max_task_retries=0)
    processes = [ray.get(actor.node_and_pid.remote())[1] for actor in pair]
    read = 0

    def source() -> Iterator[tuple[int, Problem]]:
        nonlocal read
        read = 0
        for problem in problems:
            read += 1
            yield read, problem

    async def run() -> dict[int, Outcome]:
        found: dict[int, Outcome] = {}
        async for number, outcome in stream(pair, CBS, source()):
            assert number not in found
            assert read - len(found) <= 2 * 2 * PLACES, "no more are read than there is room for"
            found[number] = outcome
            if len(found) == KILLED_AT:
                os.kill(processes.pop(), signal.SIGKILL)
        return found

    found = asyncio.run(run())
    chat = load_chat(word_policy)
    (bad,) = chat.response_ids(NAN_WORD)
    assert len(found) == PROMPTS
    answered = [outcome for outcome in found.values() if isinstance(outcome, Response)]
    failed = {n: str(one) for n, one in found.items() if isinstance(one, PromptFailed)}
    own = {n for n, problem in enumerate(problems, start=1) if bad in problem.prompt_ids}
    assert own and own <= set(failed) and set(failed.values()) == {NOT_A_NUMBER}
    assert len(answered) > PROMPTS / 10, "the others go on"
    assert texts(answered) == {r.prompt_id: undisturbed[r.prompt_id] for r in answered}

    with pytest.raises(PoolIsDead, match="all 2 search actors are dead; the last error: "):
        asyncio.run(run())
