"""Theorem 1 (section 3.1, appendix A): score consistency guides a search to the optimum.

The candidates are all continuations, enumerated, and the policy's likelihood counts for nothing:
what is found is the reward's doing alone. Responses have one length, as the paper pads them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.records import Response
from orchestrator.search.engines import (
    Continuation,
    Ids,
    Sampled,
    SampleRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.method import AnySearchMethod
from orchestrator.search.methods.args import Args
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.search.methods.general import GeneralSearch
from orchestrator.search.problem import Problem
from orchestrator.search.tabular import TabularReward

WORDS = ("a", "b.", "c", "end")  # a sentence ends with the second; the last one, where there is one
END = 3


@dataclass(frozen=True)
class Every:
    """A policy of some words that draws each continuation once, then again from the first."""

    words: int
    ends: bool = False  # whether a response may end before its greatest length

    async def sample(self, request: SampleRequest) -> Sampled:
        choices = [*range(self.words), *([END] if self.ends else [])]
        pieces = (
            self._cut(path, request) for path in product(choices, repeat=request.max_new_tokens)
        )
        every = list(dict.fromkeys(pieces))
        assert len(every) <= len(request.keys), "all of them are candidates"
        return Sampled(tuple(every[i % len(every)] for i in range(len(request.keys))), 0, 0)

    async def top_next_tokens(self, request: TopRequest) -> TopTokens:
        return TopTokens(tuple(range(self.words)), (0.0,) * self.words, 0)

    def _cut(self, path: Ids, request: SampleRequest) -> Continuation:
        for length in range(1, len(path) + 1):
            text = " ".join(WORDS[token] for token in path[:length])
            if path[length - 1] == END:
                return Continuation(path[: length - 1], "end")
            if any(stop in text for stop in request.stops):
                return Continuation(path[:length], "stop")
        return Continuation(path, "length")


@dataclass
class World:
    """All full responses with different values, and the best value that a prefix can come to."""

    words: int
    length: int
    values: dict[Ids, float] = field(default_factory=dict)

    def best(self, prefix: Ids) -> float:
        full = (y for y in self.values if y[: len(prefix)] == prefix)
        return max(self.values[y] for y in full)

    def optimum(self) -> Ids:
        return max(self.values, key=lambda y: self.values[y])

    def answer(self, method: AnySearchMethod, reward: Callable[[Ids], float]) -> Response:
        problem = Problem("p", (9,), 0, self.length)
        scores = TabularReward(lambda x, y: reward(y))
        return asyncio.run(method.run(problem, Every(self.words), scores))


@st.composite
def worlds(draw: st.DrawFn, shortest: int = 1) -> World:
    words, length = draw(st.integers(2, 3)), draw(st.integers(shortest, 4))
    full = list(product(range(words), repeat=length))
    order = draw(st.permutations(range(len(full))))
    return World(words, length, dict(zip(full, map(float, order), strict=True)))


scales = st.lists(st.tuples(st.floats(0.1, 10), st.floats(-50, 50)), min_size=5, max_size=5)
SAME_LENGTH = ("token", "chunk", "response")  # all pieces of a step have it


@settings(max_examples=60, deadline=None)
@given(worlds(), scales, st.integers(1, 3), st.integers(1, 4), st.data())
def test_a_consistent_reward_finds_the_optimum_at_every_granularity(
    world: World,
    scale: list[tuple[float, float]],
    width: int,
    chunk: int,
    data: st.DataObject,
) -> None:
    """Any two prefixes of one length are ordered as their best full responses, on any scale.

    Steps and sentences have different lengths, and the theorem compares equal ones: there the scale
    is the same at every length.
    """
    granularity: Any = data.draw(st.sampled_from([*SAME_LENGTH, "sentence", "step"]))

    def reward(prefix: Ids) -> float:
        factor, shift = scale[len(prefix) if granularity in SAME_LENGTH else 0]
        return factor * world.best(prefix) + shift

    every = world.words**world.length
    own = GeneralSearch(
        granularity=granularity, sequences=width, candidates=every, chunk=chunk, delimiter="c"
    )
    assert world.answer(own, reward).token_ids == world.optimum()
    if granularity == "token":
        assert world.answer(Args(weight=1.0, k=3), reward).token_ids == world.optimum()


@settings(max_examples=40, deadline=None)
@given(worlds(shortest=3), st.integers(1, 2), st.data())
def test_a_reward_that_tells_no_prefixes_apart_does_not(
    world: World, width: int, data: st.DataObject
) -> None:
    """The counter-example: full responses are scored as well as can be, all prefixes the same."""
    last = (1,) * world.length  # never among the first of equals
    world.values[last] = max(world.values.values()) + 1

    def reward(prefix: Ids) -> float:
        return world.values[prefix] if len(prefix) == world.length else 0.0

    every = world.words**world.length
    whole = GeneralSearch(granularity="response", sequences=width, candidates=every)
    assert world.answer(whole, reward).token_ids == last == world.optimum()
    chunk = data.draw(st.integers(1, world.length - 2))
    parts = GeneralSearch(granularity="chunk", sequences=width, candidates=every, chunk=chunk)
    found = world.answer(parts, reward)
    assert found.token_ids != last and world.values[found.token_ids] < world.values[last]
    args = world.answer(Args(weight=1.0, k=3), reward)
    assert args.token_ids[:-1] == (0,) * (world.length - 1)


@st.composite
def rewards_of_unpadded(draw: st.DrawFn) -> tuple[Ids, TabularReward]:
    """A best response of two words, perhaps empty, and a reward that is consistent for it.

    Each token of the best response met in order adds a gain; every other token costs something,
    so that each prefix of the best response scores above every other prefix of its length.
    """
    best = tuple(draw(st.lists(st.integers(0, 1), max_size=4)))
    gains = draw(st.lists(st.floats(0.1, 5), min_size=4, max_size=4))
    fault = draw(st.floats(0.1, 5))

    def value(prompt_ids: Ids, response: Ids) -> float:
        same = 0
        while same < min(len(best), len(response)) and best[same] == response[same]:
            same += 1
        return sum(gains[:same]) - fault * (len(response) - same)

    return best, TabularReward(value)


@settings(max_examples=40, deadline=None)
@given(rewards_of_unpadded(), st.integers(1, 3), st.integers(1, 3))
def test_beams_find_an_optimum_that_ends_when_it_likes(
    world: tuple[Ids, TabularReward], width: int, chunk: int
) -> None:
    best, reward = world
    problem = Problem("p", (9,), 0, max_new_tokens=5)
    search = ChunkBeamSearch(beams=width, candidates=3**chunk, chunk=chunk).run
    response = asyncio.run(search(problem, Every(2, ends=True), reward))
    complete = [path for length in range(5) for path in product(range(2), repeat=length)]
    assert max(complete, key=partial(reward.value, (9,))) == best
    assert (response.token_ids, response.stop) == (best, "end")


def test_candidates_that_are_too_few_would_not_be_all() -> None:
    with pytest.raises(AssertionError, match="all of them"):
        World(2, 3).answer(
            GeneralSearch(granularity="chunk", sequences=1, candidates=3, chunk=2),
            lambda prefix: 0.0,
        )
