"""The bare-engine limit of `jobs/bench.py search`, without search or Ray.

What a method asks for in pieces of many tokens is recorded, then put through engines that have read
nothing, first all of the policy's, then all of the reward model's, in as many processes as there
are cores: in the run's batches, all at once, by halves or quarters, or at once by vLLM, whichever
is fastest. Methods that look at single tokens have their token counts divided by the best rates
(``search_rates.py``).
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from jobs.benchmarks.search_engines import Engine, engines, policy_of, reward_of
from jobs.benchmarks.search_rates import BestRates
from jobs.benchmarks.search_setting import PARTS, Case, Place, Way
from jobs.benchmarks.setting import finish
from orchestrator.records import Cost
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.batcher import Kind
from orchestrator.search.engines import (
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.problem import Problem
from orchestrator.search.runner import run_searches

Batch = tuple[Kind, list[Any]]


@dataclass
class Recorded:
    """Both engines, with what they are asked."""

    place: Place
    batches: list[Batch] = field(default_factory=list)

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        """As the policy's."""
        self.batches.append(("sample", requests))
        return policy_of(self.place).sample(requests)  # type: ignore[no-any-return]

    async def top(self, requests: list[TopRequest]) -> list[TopTokens]:
        """As the policy's."""
        self.batches.append(("top", requests))
        return policy_of(self.place).top(requests)  # type: ignore[no-any-return]

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        """As the reward model's."""
        self.batches.append(("score", requests))
        return reward_of(self.place).score(requests)  # type: ignore[no-any-return]


def limit_of(
    bare: Sequence[ProcessPoolExecutor],
    place: Place,
    case: Case,
    halves: Sequence[Sequence[Problem]],
    cost: Cost,
    rates: BestRates | None,
) -> tuple[float, str]:
    """Seconds of all the policy's work, then all the reward model's, on all cores; and by what.

    Args:
        bare: a process for each core.
        place: of the models.
        case: whose limit.
        halves: the prompts of each process.
        cost: what the run has computed in all.
        rates: by which the tokens are divided; None where requests are put through again.
    """
    if rates is not None:
        decoding, scoring = rates.measure()
        seconds = cost.policy_tokens_computed / decoding.tokens
        seconds += cost.reward_tokens_computed / scoring.tokens
        return seconds, f"{decoding}, {scoring}"
    runs = [one.submit(_record, place, case, own) for one, own in zip(bare, halves, strict=True)]
    batches = [run.result() for run in runs]
    total, fastest = 0.0, []
    for kinds in (("sample", "top"), ("score",)):
        there = engines(place, scores="score" in kinds)
        ways = [way for way in case.ways if way != "vLLM" or "vLLM" in there]
        some = [[batch for batch in part if batch[0] in kinds] for part in batches]
        times = {way: _replayed(bare, place, some, way) for way in ways}
        fastest.append(min(times, key=lambda way: times[way]))
        total += times[fastest[-1]]
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
    asyncio.run(run_searches(asked, case.method.run, BatchBackend(recorded, recorded)))
    return recorded.batches


def _replay(place: Place, batches: Sequence[Batch], way: Way) -> float:
    """Seconds that one process takes for some batches, with an engine that has read nothing."""
    torch.set_num_threads(place.threads)
    if not batches:
        return 0.0
    kind = batches[0][0]  # of all, where they go at once
    engine: Engine = "vLLM" if way == "vLLM" else "transformers"
    policy, reward = policy_of(place, engine), reward_of(place, engine)
    policy.forget()
    reward.forget()
    if way != "in batches":
        every = [request for _, requests in batches for request in requests]
        size = -(-len(every) // PARTS[way])
        batches = [(kind, every[i : i + size]) for i in range(0, len(every), size)]
    start = time.perf_counter()
    for kind, requests in batches:
        getattr(reward if kind == "score" else policy, kind)(requests)
    finish(place.setting.device)
    return time.perf_counter() - start
