"""The search methods by name: the one place where a new one is added."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from orchestrator.records import Response
from orchestrator.search.args import ArgsParameters, args_greedy
from orchestrator.search.base import NoParameters, base, greedy
from orchestrator.search.beam import BeamParameters, beam_search
from orchestrator.search.best_of_n import BestOfNParameters, best_of_n
from orchestrator.search.cards import CardsParameters, cards
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.general import GeneralParameters, general_search
from orchestrator.search.problem import Problem

Parameters = TypeVar("Parameters")
Search = Callable[[Problem, Policy, Reward], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Method(Generic[Parameters]):
    """A method's coroutine and the frozen dataclass of what can be set about it."""

    parameters: type[Parameters]
    run: Callable[[Problem, Policy, Reward, Parameters], Coroutine[Any, Any, Response]]

    def bind(self, parameters: Parameters) -> Search:
        """The method with its parameters set: what a runner starts for each problem."""

        def search(
            problem: Problem, policy: Policy, reward: Reward
        ) -> Coroutine[Any, Any, Response]:
            return self.run(problem, policy, reward, parameters)

        return search


METHODS: dict[str, Method[Any]] = {
    "base": Method(NoParameters, base),
    "greedy": Method(NoParameters, greedy),
    "bon": Method(BestOfNParameters, best_of_n),
    "args": Method(ArgsParameters, args_greedy),
    "tbs": Method(BeamParameters, beam_search),  # chunk = 1
    "cbs": Method(BeamParameters, beam_search),
    "cards": Method(CardsParameters, cards),
    "general": Method(GeneralParameters, general_search),
}
