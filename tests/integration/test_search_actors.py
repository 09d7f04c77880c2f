"""Search actors under Ray: the same responses as in one process, also when one is killed."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
import ray
from conftest import own_ray

from actors.policy import PolicyPlace
from actors.reward import RewardPlace
from actors.search import Search, SearchActor, search_all
from orchestrator.engines.chat import load_chat
from orchestrator.records import Response
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.search.beam import BeamParameters
from orchestrator.search.problem import Problem
from orchestrator.world import agents

PROMPTS, PLACES = 200, 8
ALIKE = 0.99  # of the texts, in float32, whose rounding depends on the batch
CBS = Search("cbs", BeamParameters(2, 3, 4), PLACES)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with own_ray():
        yield


@pytest.fixture(scope="module")
def problems(word_policy: str) -> list[Problem]:
    chat = load_chat(word_policy)
    prompts = agents.prompts(PROMPTS, seed=4)
    return [Problem(p.prompt_id, chat.prompt_ids(p.messages), 0, 16) for p in prompts]


def actors(count: int, policy: str, reward: str) -> list[SearchActor]:
    places = (
        PolicyPlace(policy, 1.0, 1.0, "cpu", 1),
        RewardPlace(ScorerSpec(reward), "closed", policy, "cpu", 1),
    )
    return [SearchActor.options(num_cpus=0.1).remote(*places) for _ in range(count)]  # type: ignore[attr-defined]


def alike(found: list[Response], expected: list[Response]) -> float:
    same = [a.token_ids == b.token_ids for a, b in zip(found, expected, strict=True)]
    return sum(same) / len(same)


def test_one_actor_of_two_is_killed_and_every_prompt_is_answered_once(
    word_policy: str, word_reward: str, problems: list[Problem], cluster: None
) -> None:
    (one,) = actors(1, word_policy, word_reward)
    expected = asyncio.run(search_all([one], CBS, problems))
    assert [response.prompt_id for response in expected] == [p.prompt_id for p in problems]
    ray.kill(one)

    pair = actors(2, word_policy, word_reward)
    ray.get([actor.ready.remote() for actor in pair])
    pid = ray.get(pair[0].process.remote())
    told: list[str] = []

    def finished(response: Response) -> None:
        told.append(response.prompt_id)
        if len(told) == PROMPTS // 4:
            os.kill(pid, signal.SIGKILL)

    found = asyncio.run(search_all(pair, CBS, problems, finished))
    assert sorted(told) == sorted(problem.prompt_id for problem in problems)
    assert [response.prompt_id for response in found] == [p.prompt_id for p in problems]
    assert alike(found, expected) >= ALIKE
    assert ray.get(pair[0].process.remote()) != pid, "Ray started it again"
