"""Measure the limit of `jobs/bench.py search`: the bare engines without search and without Ray.

The requests of a method are recorded, and then replayed with empty caches in one process per core:
first all requests of the policy, then all of the reward model. They are replayed in the batches of
the run, all at once, in halves, in quarters, and all at once by vLLM; the fastest way counts. For
methods that choose single tokens, the limit is their token counts divided by the best rates
(``search_rates.py``).
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from jobs.benchmarks.search_cases import NUM_BATCHES, Case, ModelSetup, Way
from jobs.benchmarks.search_engines import Engine, engines, policy_of, reward_of
from jobs.benchmarks.search_rates import BestRates
from jobs.benchmarks.setting import synchronize
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
class RecordingEngines:
    """Both engines, with a record of their requests."""

    setup: ModelSetup
    batches: list[Batch] = field(default_factory=list)

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        """Answer requests of the policy, and record them."""
        self.batches.append(("sample", requests))
        return policy_of(self.setup, "transformers").sample(requests)  # type: ignore[no-any-return]

    async def top_next_tokens(self, requests: list[TopRequest]) -> list[TopTokens]:
        """Answer requests of the policy, and record them."""
        self.batches.append(("top", requests))
        return policy_of(self.setup, "transformers").top_next_tokens(requests)  # type: ignore[no-any-return]

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        """Answer requests of the reward model, and record them."""
        self.batches.append(("score", requests))
        return reward_of(self.setup, "transformers").score(requests)  # type: ignore[no-any-return]


def limit_of(
    workers: Sequence[ProcessPoolExecutor],
    setup: ModelSetup,
    case: Case,
    shards: Sequence[Sequence[Problem]],
    cost: Cost,
    rates: BestRates | None,
) -> tuple[float, str]:
    """Return the seconds that the bare engines take for a method's requests, and the fastest way.

    Args:
        workers: a process for each core.
        setup: the models.
        case: the search method.
        shards: the prompts of each process.
        cost: the total cost of the run; read only with ``rates``.
        rates: the rates to divide token counts by; None: requests are replayed.
    """
    if rates is not None:
        decoding, scoring = rates.measure()
        seconds = cost.policy_tokens_computed / decoding.tokens_per_second
        seconds += cost.reward_tokens_computed / scoring.tokens_per_second
        return seconds, f"{decoding}, {scoring}"
    runs = [
        worker.submit(_record, setup, case, shard)
        for worker, shard in zip(workers, shards, strict=True)
    ]
    batches = [run.result() for run in runs]
    total, fastest = 0.0, []
    for kinds in (("sample", "top"), ("score",)):
        available = engines(setup, scores="score" in kinds)
        ways = [way for way in case.ways if way != "vLLM" or "vLLM" in available]
        chosen = [[batch for batch in shard if batch[0] in kinds] for shard in batches]
        times = {way: _replayed(workers, setup, chosen, way) for way in ways}
        fastest.append(min(times, key=lambda way: times[way]))
        total += times[fastest[-1]]
    return total, ", ".join(fastest)


def _replayed(
    workers: Sequence[ProcessPoolExecutor],
    setup: ModelSetup,
    shards: Sequence[Sequence[Batch]],
    way: Way,
) -> float:
    """Replay requests in all processes and return the seconds of the slowest one."""
    replays = [
        worker.submit(_replay, setup, shard, way)
        for worker, shard in zip(workers, shards, strict=True)
    ]
    return max(replay.result() for replay in replays)


def _record(setup: ModelSetup, case: Case, problems: Sequence[Problem]) -> list[Batch]:
    """Search some prompts and return the batches of requests."""
    torch.set_num_threads(setup.threads)
    recording = RecordingEngines(setup)
    asyncio.run(run_searches(problems, case.method.run, BatchBackend(recording, recording)))
    return recording.batches


def _replay(setup: ModelSetup, batches: Sequence[Batch], way: Way) -> float:
    """Replay batches in this process with empty caches and return the seconds."""
    torch.set_num_threads(setup.threads)
    if not batches:
        return 0.0
    kind = batches[0][0]
    engine: Engine = "vLLM" if way == "vLLM" else "transformers"
    policy, reward = policy_of(setup, engine), reward_of(setup, engine)
    policy.clear_cache()
    reward.clear_cache()
    if way != "in batches":
        all_requests = [request for _, requests in batches for request in requests]
        size = -(-len(all_requests) // NUM_BATCHES[way])
        starts = range(0, len(all_requests), size)
        batches = [(kind, all_requests[i : i + size]) for i in starts]
    start = time.perf_counter()
    for kind, requests in batches:
        getattr(reward if kind == "score" else policy, kind)(requests)
    synchronize(setup.setting.device)
    return time.perf_counter() - start
