"""A search that is written down after any step and gone on from is the search that ran through."""

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.records import Cost
from orchestrator.search.args import ArgsParameters, StochasticArgsParameters
from orchestrator.search.base import NoParameters
from orchestrator.search.beam import BeamParameters, StepBeamParameters
from orchestrator.search.best_of_n import BestOfNParameters
from orchestrator.search.cards import CardsParameters
from orchestrator.search.dvts import DvtsParameters
from orchestrator.search.general import GeneralParameters
from orchestrator.search.problem import Candidate, Problem
from orchestrator.search.registry import METHODS
from orchestrator.search.state import State, from_json, to_json
from orchestrator.search.tabular import random_policy, random_reward
from orchestrator.search.vote import VoteParameters

PARAMETERS: dict[str, Any] = {
    "base": NoParameters(),
    "greedy": NoParameters(),
    "bon": BestOfNParameters(3),
    "weighted_bon": VoteParameters(3),
    "vote": VoteParameters(3),
    "args": ArgsParameters(1.5, 3),
    "args_stochastic": StochasticArgsParameters(1.5, 3),
    "tbs": BeamParameters(2, 3, 1),
    "cbs": BeamParameters(2, 3, 2),
    "cards": CardsParameters(0.5, 0.7, entropy_threshold=1.0, max_rejections=4),
    "general": GeneralParameters("step", 2, 3, delimiter="2"),
    "step_beam": StepBeamParameters(2, 2, "1"),
    "dvts": DvtsParameters(3, 2, "1"),
}


def test_every_method_is_tried() -> None:
    assert set(PARAMETERS) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32))
def test_going_on_from_any_written_state_gives_the_same_response(name: str, seed: int) -> None:
    policy, reward = random_policy(seed, 4), random_reward(seed)
    problem = Problem("p", (5, 6), seed, max_new_tokens=7)
    method, own = METHODS[name], PARAMETERS[name]
    states: list[State] = []
    through = method.bind(own, tell=lambda _, state: states.append(state))
    response = asyncio.run(through(problem, policy, reward))
    assert [state.step for state in states] == list(range(len(states)))
    for state in states:
        text = to_json(state)
        json.loads(text, parse_constant=pytest.fail)  # JSON as other readers know it
        back = from_json(method.state, text)
        assert back == state and type(back) is type(state)
        going_on = method.bind(own, begun=lambda _, back=back: back)  # type: ignore[misc]
        assert asyncio.run(going_on(problem, policy, reward)) == response


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
    state = State(candidates, step, Cost(step, seconds=seconds), margin)
    back = from_json(State, to_json(state))
    assert back == state
    assert math.copysign(1, back.margin) == math.copysign(1, margin)


@dataclass(frozen=True)
class Odd:
    """What a state may not hold."""

    value: Any


def test_what_is_no_plain_value_is_refused() -> None:
    with pytest.raises(TypeError, match="set is no plain value"):
        to_json(Odd({1}))
    with pytest.raises(TypeError, match="'x' is not of <class 'int'>"):
        from_json(State, '{"candidates": [], "step": "x"}')
    with pytest.raises(TypeError):
        from_json(State, '{"step": 1}')
