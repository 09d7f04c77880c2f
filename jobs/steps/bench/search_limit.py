"""The bare-engine limit of `jobs/bench.py search`: the run's own requests without search or Ray.

What our run asks for is recorded, then put through engines that have read nothing, first all of the
policy's, then all of the reward model's, in as many processes as there are cores.
"""

import asyncio
import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch

from jobs.steps.bench.search_setting import Case, Place
from jobs.steps.bench.setting import finish
from orchestrator.engines.policy import HuggingFacePolicy
from orchestrator.engines.vllm_policy import VllmPolicy
from orchestrator.scorers.registry import load_scorer
from orchestrator.scorers.scorer import Scorer, ScorerSpec
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.search.engines import (
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.lockstep import run_wave
from orchestrator.search.problem import Problem
from orchestrator.search.registry import METHODS
from orchestrator.search.wave import Kind

Batch = tuple[Kind, list[Any]]
Way = Literal["in batches", "at once", "vLLM"]


@dataclass
class Recorded:
    """Both engines, with what they are asked."""

    place: Place
    batches: list[Batch] = field(default_factory=list)

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        """As the policy's."""
        self.batches.append(("sample", requests))
        return _policy(self.place).sample(requests)

    async def top(self, requests: list[TopRequest]) -> list[TopTokens]:
        """As the policy's."""
        self.batches.append(("top", requests))
        return _policy(self.place).top(requests)

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        """As the reward model's."""
        self.batches.append(("score", requests))
        return _reward(self.place).score(requests)


def limit_of(
    bare: Sequence[ProcessPoolExecutor],
    place: Place,
    case: Case,
    halves: Sequence[Sequence[Problem]],
) -> tuple[float, str]:
    """Seconds of all of the policy's requests, then of all of the reward model's, on all cores.

    And which way was the fastest for each.
    """
    runs = [one.submit(_record, place, case, own) for one, own in zip(bare, halves, strict=True)]
    batches = [run.result() for run in runs]
    ways: list[Way] = ["in batches"]
    if case.in_pieces:
        ways.append("at once")
        if importlib.util.find_spec("vllm") is not None and place.position == "open":
            ways.append("vLLM")
    total, fastest = 0.0, []
    for kinds in (("sample", "top"), ("score",)):
        some = [[batch for batch in part if batch[0] in kinds] for part in batches]
        seconds = {way: _replayed(bare, place, some, way) for way in ways}
        fastest.append(min(seconds, key=lambda way: seconds[way]))
        total += seconds[fastest[-1]]
    return total, ", ".join(fastest)


def _replayed(
    bare: Sequence[ProcessPoolExecutor],
    place: Place,
    parts: Sequence[Sequence[Batch]],
    way: Way,
) -> float:
    """Seconds of the slowest process."""
    replays = [one.submit(_replay, place, own, way) for one, own in zip(bare, parts, strict=True)]
    return max(replay.result() for replay in replays)


def _record(place: Place, case: Case, asked: Sequence[Problem]) -> list[Batch]:
    """What the search of some prompts asks for."""
    torch.set_num_threads(place.threads)
    recorded = Recorded(place)
    asyncio.run(run_wave(asked, METHODS[case.method].bind(case.parameters), recorded, recorded))
    return recorded.batches


def _replay(place: Place, batches: Sequence[Batch], way: Way) -> float:
    """Seconds that one process takes for some batches, with an engine that has read nothing."""
    torch.set_num_threads(place.threads)
    if not batches:
        return 0.0
    kind = batches[0][0]  # of all, where they go at once
    policy: Any = _vllm_policy(place) if way == "vLLM" else _policy(place)
    reward: Any = _vllm_reward(place) if way == "vLLM" else _reward(place)
    policy.forget()
    reward.forget()
    if way != "in batches":
        batches = [(kind, [request for _, requests in batches for request in requests])]
    start = time.perf_counter()
    for kind, requests in batches:
        getattr(reward if kind == "score" else policy, kind)(requests)
    finish(place.setting.device)
    return time.perf_counter() - start


@lru_cache(maxsize=1)
def _policy(place: Place) -> HuggingFacePolicy:
    return HuggingFacePolicy(f"{place.folder}/policy", device=place.setting.device, ends=False)


@lru_cache(maxsize=1)
def _reward(place: Place) -> SequenceScorer:
    return SequenceScorer(f"{place.folder}/reward", place.position, device=place.setting.device)


@lru_cache(maxsize=1)
def _vllm_policy(place: Place) -> VllmPolicy:
    return VllmPolicy(f"{place.folder}/policy", device=place.setting.device, ends=False)


@lru_cache(maxsize=1)
def _vllm_reward(place: Place) -> Scorer:
    spec = ScorerSpec(f"{place.folder}/reward", engine="vllm")
    return load_scorer(spec, place.position, device=place.setting.device)
