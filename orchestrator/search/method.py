"""What a search method is, and the one loop that runs each of them, from the start or from a state.

A method is its parameters, how it begins, one step (expand, score, select: the part that reads like
the paper's pseudocode), when it is done, and which candidate is its answer.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.records import Response
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate, Problem, competing
from orchestrator.search.state import State

Search = Callable[[Problem, Policy, Reward], Coroutine[Any, Any, Response]]
Tell = Callable[[Problem, State], None]


async def one_beginning(ask: Ledger, parameters: Any) -> State:
    """One candidate, empty yet: how most methods begin."""
    return State((Candidate(),))


def none_grows(problem: Problem, state: State) -> bool:
    """Whether every candidate is finished or as long as it may be: when most methods are done."""
    return not any(problem.room(candidate) for candidate in state.candidates)


def best(ask: Ledger, state: State, parameters: Any) -> Candidate:
    """The best finished candidate or, where none is, the best of all: most methods' answer."""
    (chosen,) = ask.select(competing(state.candidates), 1)
    return chosen


@dataclass(frozen=True)
class Method:
    """One search method.

    Attributes:
        parameters: the frozen dataclass of what can be set about it.
        step: from a state to the next; the loop counts steps, cost and margin.
        begin: the state before the first step; it may ask the engines too.
        done: whether a state needs no step more.
        answer: the candidate that a state which is done stands for.
        state: the kind of state, for reading one back.
    """

    parameters: type[Any]
    step: Callable[[Ledger, Any, Any], Coroutine[Any, Any, State]]
    begin: Callable[[Ledger, Any], Coroutine[Any, Any, State]] = one_beginning
    done: Callable[[Problem, Any], bool] = none_grows
    answer: Callable[[Ledger, Any, Any], Candidate] = best
    state: type[State] = State

    def bind(
        self,
        parameters: Any,
        *,
        begun: Callable[[Problem], State] | None = None,
        tell: Tell | None = None,
    ) -> Search:
        """The method with its parameters set: what a runner starts for each problem.

        Args:
            parameters: of the method's kind.
            begun: gives the state to go on from; without it a search begins anew.
            tell: told of the state at the beginning and after each step.
        """

        async def search(problem: Problem, policy: Policy, reward: Reward) -> Response:
            ask = Ledger(problem, policy, reward)
            state = (
                begun(problem) if begun else await self.begun(problem, policy, reward, parameters)
            )
            ask.cost, ask.margin = state.cost, state.margin
            while True:
                if tell is not None:
                    tell(problem, state)
                if self.done(problem, state):
                    return ask.response(self.answer(ask, state, parameters))
                found = await self.step(ask, state, parameters)
                state = replace(found, step=state.step + 1, cost=ask.cost, margin=ask.margin)

        return search

    async def begun(
        self, problem: Problem, policy: Policy, reward: Reward, parameters: Any
    ) -> State:
        """The state before the first step."""
        ask = Ledger(problem, policy, reward)
        state = await self.begin(ask, parameters)
        return replace(state, cost=ask.cost, margin=ask.margin)
