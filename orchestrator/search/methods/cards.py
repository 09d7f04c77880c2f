"""CARDS, cascade reward sampling (Algorithm 4, Li et al. 2024): segments by rejection sampling.

A segment ends where the policy is uncertain; it is accepted if its reward reaches a threshold that
depends on the length.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from orchestrator.fields.types import Count, NotNegative, Quantile, Real
from orchestrator.randomness import uniforms
from orchestrator.search.calibration import Calibration, NotCalibrated
from orchestrator.search.client import MeteredClient
from orchestrator.search.method import SearchMethod, register
from orchestrator.search.problem import Candidate
from orchestrator.search.state import SearchState

ENTROPY_THRESHOLD = 7.0  # nats, from the paper (C.5); used if no entropies are measured
ON_ITS_SCALE = "needs it as a number on the reward model's own scale"


@dataclass(frozen=True)
class CardsState(SearchState):
    """``initial`` is r_0, the threshold of the empty response."""

    initial: float = 0.0


@register
class Cards(SearchMethod[CardsState]):
    """CARDS (Algorithm 4): rejection sampling of segments.

    A threshold is a number, or null; null is computed from measurements on prompts outside the
    test. Reward models differ in scale, so one r* does not suit two of them. By default r* is a
    quantile of the scorer's rewards of full responses of the base policy, and beta is the
    standard deviation of these rewards.
    """

    name: Literal["cards"] = "cards"
    entropy_threshold: Real | None = None
    """tau_u in nats (the paper: 7.0): a segment ends before a token of at least this entropy."""
    entropy_quantile: Quantile = 0.9
    """If entropy_threshold is null, tau_u is this quantile of the policy's entropies."""
    target_reward: Real | None = None
    """r*, the threshold at the maximum length of a response, in units of the reward."""
    target_quantile: Quantile = 0.7
    """If target_reward is null, r* is this quantile of the scorer's rewards."""
    alpha: Quantile = 0.5
    """Weight of r* in the threshold of the empty response; its own reward has the rest."""
    beta: NotNegative | None = None
    """Temperature of acceptance in units of the reward; 0 rejects all below the threshold. Null:
    the standard deviation of the scorer's rewards."""
    segment_cap: Count = 16
    """Maximum number of tokens in a segment."""
    max_rejections: Count = 8
    """Maximum number of rejected segments in a step; then the best of them is appended."""

    order: ClassVar[int] = 50
    on_by_default: ClassVar[bool] = True
    needs_entropies: ClassVar[bool] = True
    state_type: ClassVar[type[SearchState]] = CardsState

    async def begin(self, client: MeteredClient) -> CardsState:
        """Score the empty response, whose reward sets the initial threshold."""
        (empty_reward,) = await client.score((), (Candidate(),))
        initial = (1 - self.alpha) * empty_reward + self.alpha * _number(self.target_reward)
        return CardsState((Candidate(),), initial=initial)

    async def step(self, client: MeteredClient, state: CardsState) -> CardsState:
        """Append the first accepted segment or, after ``max_rejections``, the best rejected one."""
        rejected: list[Candidate] = []
        target, beta = _number(self.target_reward), _number(self.beta)
        while len(rejected) < self.max_rejections:
            candidate = await self._extended(client, state, len(rejected))
            required = threshold(
                len(candidate.token_ids), client.problem.max_new_tokens, state.initial, target
            )
            probability = acceptance(candidate.score, required, beta)
            key = client.problem.key("cards-accept", state.step, len(rejected))
            draw = float(uniforms(key, 1)[0])
            client.decided(abs(draw - probability))
            if draw < probability:
                return replace(state, candidates=(candidate,))
            rejected.append(candidate)
        return replace(state, candidates=client.select(rejected, 1))

    async def _extended(self, client: MeteredClient, state: CardsState, attempt: int) -> Candidate:
        """Append a scored segment, drawn with the stream (..., "cards", step, attempt)."""
        (response,) = state.candidates
        (segment,) = await client.sample(
            response.token_ids,
            (client.problem.key(self.name, state.step, attempt),),
            min(self.segment_cap, client.problem.room(response)),
            entropy_stop=_number(self.entropy_threshold),
        )
        (score,) = await client.score(response.token_ids, (segment,))
        return response.extended(segment, score)

    @property
    def unused_fields(self) -> Mapping[str, tuple[str, str]]:
        """Quantiles whose thresholds are set as numbers."""
        thresholds = {"entropy_quantile": "entropy_threshold", "target_quantile": "target_reward"}
        return {
            quantile: (f"{name} is set", f"{name} null")
            for quantile, name in thresholds.items()
            if getattr(self, name) is not None
        }

    @property
    def calibrates_entropy(self) -> bool:
        """Whether tau_u is a quantile."""
        return self.entropy_threshold is None

    @property
    def calibrates_reward(self) -> bool:
        """Whether r* or beta is computed from rewards."""
        return self.target_reward is None or self.beta is None

    @property
    def note(self) -> str:
        """Where the thresholds come from."""
        sources = []
        if self.calibrates_reward:
            sources.append(
                "r* and beta are the scorer's quantile and standard deviation over full"
                " responses to prompts outside the test"
            )
        if self.calibrates_entropy:
            sources.append("tau_u is a quantile of the policy's entropies")
        return f"CARDS: {'; '.join(sources)}." if sources else ""

    def calibrated(self, calibration: Calibration) -> Self:
        """Return CARDS with all thresholds set; tau_u is the paper's if there are no entropies."""
        entropy, target, beta = self.entropy_threshold, self.target_reward, self.beta
        if entropy is None:
            entropies = calibration.entropies
            entropy = (
                float(np.quantile(entropies, self.entropy_quantile))
                if entropies
                else ENTROPY_THRESHOLD
            )
        for field, value in {"target_reward": target, "beta": beta}.items():
            if value is None and not calibration.rewards:
                raise NotCalibrated(field, f"{self.name} {ON_ITS_SCALE}")
        if target is None:
            target = float(np.quantile(calibration.rewards, self.target_quantile))
        if beta is None:
            beta = float(np.std(calibration.rewards))
        thresholds = {"entropy_threshold": entropy, "target_reward": target, "beta": beta}
        return self.model_copy(update=thresholds)


def threshold(length: int, max_length: int, initial: float, target: float) -> float:
    """Return the required reward of a response of ``length`` tokens: from r_0 to r*."""
    return initial + (target - initial) * length / max_length


def acceptance(value: float, required: float, beta: float) -> float:
    """Return min(1, exp((r - threshold) / beta)); for beta 0: 1 if r >= threshold, else 0."""
    if beta == 0.0:  # all calibration responses had the same reward
        return float(value >= required)
    return math.exp(min(0.0, (value - required) / beta))


def _number(threshold: float | None) -> float:
    """Return a threshold that ``calibrated`` has set."""
    if threshold is None:
        raise ValueError("the thresholds of CARDS are not set: call `calibrated` first")
    return threshold
