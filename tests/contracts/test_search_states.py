"""A search that is written down after any step and gone on from is the search that ran through."""

import asyncio
import json
import math
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.method_examples import examples
from support.random_worlds import random_policy, random_reward

from orchestrator.records import Cost
from orchestrator.search.method import METHODS
from orchestrator.search.problem import Candidate, Problem
from orchestrator.search.state import SearchState, state_from_json, state_to_json

EXAMPLES = examples("2")


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32))
def test_going_on_from_any_written_state_gives_the_same_response(name: str, seed: int) -> None:
    policy, reward = random_policy(seed, 4), random_reward(seed)
    problem = Problem("p", (5, 6), seed, max_new_tokens=7)
    method, states = EXAMPLES[name], list[SearchState]()
    run = partial(method.run, problem, policy, reward)
    response = asyncio.run(run(on_state=lambda _, state: states.append(state)))
    assert [state.step for state in states] == list(range(len(states)))
    for state in states:
        text = state_to_json(state)
        json.loads(text, parse_constant=pytest.fail)  # JSON as other readers know it
        back = state_from_json(method.state_type, text)
        assert back == state and type(back) is type(state)
        assert asyncio.run(run(resume=back)) == response


numbers = st.floats(allow_nan=False)


@given(
    st.lists(
        st.builds(
            Candidate, st.lists(st.integers()).map(tuple), st.booleans(), numbers,
            st.lists(numbers).map(tuple),
        )
    ).map(tuple),
    st.integers(), numbers, numbers,
)  # fmt: skip
def test_a_state_comes_back_with_every_bit(
    candidates: tuple[Candidate, ...], step: int, seconds: float, margin: float
) -> None:
    state = SearchState(candidates, step, Cost(step, seconds=seconds), margin)
    back = state_from_json(SearchState, state_to_json(state))
    assert back == state
    assert math.copysign(1, back.margin) == math.copysign(1, margin)


@pytest.mark.parametrize("text", ['{"candidates": [], "step": "x"}', '{"step": 1}', "[]"])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        state_from_json(SearchState, text)
