"""The base class and the registry of search methods, and the loop that runs them.

A method's fields are its section of the config. Its step (expand, score, select) reads like the
paper's pseudocode. Traits declare what it needs from its environment.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Generic, Self, get_args

from typing_extensions import TypeVar

from orchestrator.fields.section import Section
from orchestrator.fields.types import Count
from orchestrator.records import Response
from orchestrator.registry import PluginError, Registry
from orchestrator.search.calibration import Calibration
from orchestrator.search.client import MeteredClient
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.problem import Candidate, Problem, competing
from orchestrator.search.state import SearchState

StateT = TypeVar("StateT", bound=SearchState, default=SearchState)
Search = Callable[[Problem, Policy, Reward], Coroutine[object, object, Response]]
OnState = Callable[[Problem, SearchState], None]
SECONDS = 0.025  # per prompt, unless a method overrides it


class SearchMethod(Section, Generic[StateT]):
    """A search method; a subclass sets ``name`` and defines ``step``.

    The fields of a subclass are its settings, except ``name`` and ``prompts``. Class variables are
    traits: what the method needs from its environment.

    Attributes:
        order: rank of its rows in tables, ascending; equal ranks are sorted by name.
        always_runs: whether every sweep runs it, as a baseline. It has no section in the config.
        on_by_default: whether a sweep runs it if the config does not name it.
        needs_scorer: whether it requests scores.
        needs_entropies: whether it requests the policy's next-token entropies.
        has_curve: whether its scored samples also determine its response for every smaller number
            of samples.
        needs_answers: whether it needs final answers in the responses.
        samples_policy: whether temperature and top-p of the policy apply.
        is_random: whether the seed matters.
        state_type: the type of its states.
    """

    name: str
    """The method's name."""
    prompts: Count | None = None
    """In a sweep, how many of the test prompts it answers, from the first; null: all."""

    order: ClassVar[int] = 100
    always_runs: ClassVar[bool] = False
    on_by_default: ClassVar[bool] = False
    needs_scorer: ClassVar[bool] = True
    needs_entropies: ClassVar[bool] = False
    has_curve: ClassVar[bool] = False
    needs_answers: ClassVar[bool] = False
    samples_policy: ClassVar[bool] = True
    is_random: ClassVar[bool] = True
    state_type: ClassVar[type[SearchState]] = SearchState

    @classmethod
    def default_name(cls) -> str:
        """Return the default of ``name``, under which the method is registered.

        Raises:
            PluginError: it is not the only value that ``name`` may have.
        """
        field = cls.model_fields["name"]
        if get_args(field.annotation) != (field.default,):
            raise PluginError(
                f"{cls.__module__}.{cls.__qualname__}: its field `name` must be of type"
                ' Literal["..."] with that value as its default'
            )
        return str(field.default)

    async def begin(self, client: MeteredClient) -> StateT:
        """Return the state before the first step: one empty candidate, unless overridden."""
        return self.state_type((Candidate(),))  # type: ignore[return-value]

    async def step(self, client: MeteredClient, state: StateT) -> StateT:
        """Return the next state. The loop counts steps, cost and margin."""
        raise NotImplementedError

    def is_done(self, problem: Problem, state: StateT) -> bool:
        """Whether the search is over: no candidate can grow, unless overridden."""
        return not any(problem.room(candidate) for candidate in state.candidates)

    def answer(self, client: MeteredClient, state: StateT) -> Candidate:
        """Return the response of a final state: the best finished candidate, or the best of all."""
        (best,) = client.select(competing(state.candidates), 1)
        return best

    async def run(
        self,
        problem: Problem,
        policy: Policy,
        reward: Reward,
        *,
        resume: StateT | None = None,
        on_state: OnState | None = None,
    ) -> Response:
        """Search for the response to one prompt.

        Args:
            problem: the prompt.
            policy: answers requests for samples and likeliest tokens.
            reward: answers requests for scores.
            resume: a state of this method to continue from; None: start from the beginning.
            on_state: called with the initial state and with the state after each step.

        Raises:
            PromptFailed: the prompt cannot be answered.
        """
        client = MeteredClient(problem, policy, reward)
        state = await self.initial(problem, policy, reward) if resume is None else resume
        client.cost, client.margin = state.cost, state.margin
        while True:
            if on_state is not None:
                on_state(problem, state)
            if self.is_done(problem, state):
                return client.response(self.answer(client, state))
            following = await self.step(client, state)
            state = replace(following, step=state.step + 1, cost=client.cost, margin=client.margin)

    async def initial(self, problem: Problem, policy: Policy, reward: Reward) -> StateT:
        """Return the state before the first step, with the cost of computing it."""
        client = MeteredClient(problem, policy, reward)
        state = await self.begin(client)
        return replace(state, cost=client.cost, margin=client.margin)

    @property
    def settings(self) -> dict[str, object]:
        """The fields that decide the response to a prompt, JSON-able."""
        return self.model_dump(mode="json", exclude={"name", "prompts"})

    @property
    def candidate_counts(self) -> dict[str, int]:
        """Factors of the number of candidates that a prompt has at once, by field."""
        return {}

    @property
    def shared_samples(self) -> int:
        """Number of samples in its initial state, drawn once for all such methods.

        0: its initial state is not shared samples.
        """
        return 0

    @property
    def step_delimiter(self) -> str | None:
        """The text that ends a step, if any; the policy must be able to generate it."""
        return None

    @property
    def unused_fields(self) -> Mapping[str, tuple[str, str]]:
        """Fields that have no effect with the other fields: the reason, and what would use them."""
        return {}

    @property
    def calibrates_entropy(self) -> bool:
        """Whether ``calibrated`` needs entropies of the policy."""
        return False

    @property
    def calibrates_reward(self) -> bool:
        """Whether ``calibrated`` needs rewards of the base policy's responses."""
        return False

    def calibrated(self, calibration: Calibration) -> Self:
        """Return the method with all thresholds as numbers, for one scorer.

        Raises:
            NotCalibrated: a threshold is neither set nor computable from ``calibration``.
        """
        return self

    @property
    def note(self) -> str:
        """A sentence for the report about what the fields do not show; "" for none."""
        return ""

    def seconds(self, tokens: float) -> float:
        """Estimate the seconds of a prompt whose response has ``tokens`` tokens.

        Measured with the helpdesk task's models on the reference machine of dry runs.
        """
        return SECONDS


AnySearchMethod = SearchMethod[Any]  # a method with any type of state
MethodT = TypeVar("MethodT", bound=type[AnySearchMethod])
METHODS: Registry[type[AnySearchMethod]] = Registry(
    "search method", "orchestrator.search.methods", "prm_orchestrator.methods"
)


def register(method: MethodT) -> MethodT:
    """Register a search method under the default of its field ``name``.

    Raises:
        PluginError: another method has the name, or it is not the only value of the field.
    """
    METHODS.add(method.default_name(), method)
    return method


def methods_in_order() -> dict[str, type[AnySearchMethod]]:
    """Return all search methods by name, in the order of tables."""
    return dict(sorted(METHODS.items(), key=lambda item: (item[1].order, item[0])))
