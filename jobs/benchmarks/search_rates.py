"""Measure the limit of methods that choose single tokens: token counts / best rates.

The requests of ARGS and TBS depend on earlier answers, so they cannot be replayed in other batches.
Their token counts are divided by the rates at which the bare engines decode, and score k candidates
of cached prefixes, on all cores, each in its best batch size with its fastest engine. Tokens that
an engine computes again do not count.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from jobs.benchmarks.search_cases import NEW_TOKENS, PROMPT_TOKENS, Case, ModelSetup, random_ids
from jobs.benchmarks.search_engines import Engine, engines, policy_of, reward_of
from jobs.benchmarks.setting import synchronize
from orchestrator.search.engines import SampleRequest, ScoreRequest

FIRST_BATCH_SIZE = 64  # initial batch size (sequences), doubled while throughput improves
MAX_MULTIPLE = 2  # stop at this multiple of the best batch size
MIN_SHARE_OF_BEST = 1 / 3  # share of the best rate below which an engine is not tried further
ROUNDS = 3  # repetitions of each measurement; the best counts


@dataclass(frozen=True)
class Rate:
    """Tokens per second of all processes together, with an engine and a batch size."""

    tokens_per_second: float
    batch_size: int
    engine: Engine

    def __str__(self) -> str:
        rate = f"{self.tokens_per_second:,.0f} tokens/s by {self.engine}"
        return f"{rate}, {self.batch_size} sequences per process"


class BestRates:
    """The rates of the best engine and batch size, which the first measurement chooses.

    Args:
        workers: a process for each core.
        setup: the models.
        case: the search method, for its number of beams and candidates.
    """

    def __init__(
        self, workers: Sequence[ProcessPoolExecutor], setup: ModelSetup, case: Case
    ) -> None:
        counts = {"beams": 1, **case.method.candidate_counts}
        beams, candidates = counts["beams"], counts.get("k") or counts["candidates"]
        self._workers, self._setup = workers, setup
        self._first_batch_size = max(FIRST_BATCH_SIZE, beams)
        self._measurements: list[tuple[Callable[..., float], tuple[int, ...]]]
        self._measurements = [(_decoding, (beams,)), (_scoring, (beams, candidates))]
        self._best: list[Rate] = []

    def measure(self) -> list[Rate]:
        """Return the rates of decoding, and of scoring candidates of cached prefixes."""
        if self._best:
            self._best = [
                self._rate(benchmark_rate, shape, best.engine, best.batch_size)
                for (benchmark_rate, shape), best in zip(
                    self._measurements, self._best, strict=True
                )
            ]
        else:
            self._best = [self._search(*measurement) for measurement in self._measurements]
        return self._best

    def _search(self, benchmark_rate: Callable[..., float], shape: tuple[int, ...]) -> Rate:
        best: Rate | None = None
        for engine in engines(self._setup, scores=benchmark_rate is _scoring):
            fastest = self._rate(benchmark_rate, shape, engine, self._first_batch_size)
            batch_size = fastest.batch_size
            if best is not None and (
                fastest.tokens_per_second < MIN_SHARE_OF_BEST * best.tokens_per_second
            ):
                continue
            while batch_size < MAX_MULTIPLE * fastest.batch_size:
                batch_size *= 2
                rate = self._rate(benchmark_rate, shape, engine, batch_size)
                fastest = _faster(fastest, rate)
            best = fastest if best is None else _faster(best, fastest)
        assert best is not None
        return best

    def _rate(
        self,
        benchmark_rate: Callable[..., float],
        shape: tuple[int, ...],
        engine: Engine,
        batch_size: int,
    ) -> Rate:
        runs = [
            worker.submit(benchmark_rate, self._setup, engine, batch_size, *shape)
            for worker in self._workers
        ]
        return Rate(sum(run.result() for run in runs), batch_size, engine)


def _faster(first: Rate, second: Rate) -> Rate:
    return max(first, second, key=lambda rate: rate.tokens_per_second)


def _decoding(setup: ModelSetup, engine: Engine, rows: int, beams: int) -> float:
    """Return the tokens per second of one process that samples ``beams`` responses to prompts."""
    torch.set_num_threads(setup.threads)
    policy = policy_of(setup, engine)
    rates: list[float] = []
    for number in range(ROUNDS):
        prompts = random_ids(setup.setting, rows // beams, PROMPT_TOKENS, "decoding", rows, number)
        keys = tuple(range(beams))
        policy.clear_cache()
        start = time.perf_counter()
        policy.sample([SampleRequest(prompt, (), keys, NEW_TOKENS) for prompt in prompts])
        synchronize(setup.setting.device)
        rates.append(
            (len(prompts) * PROMPT_TOKENS + rows * (NEW_TOKENS - 1)) / (time.perf_counter() - start)
        )
    return max(rates)


def _scoring(setup: ModelSetup, engine: Engine, rows: int, beams: int, candidates: int) -> float:
    """Return the tokens per second of one process that scores one-token candidates of beams."""
    torch.set_num_threads(setup.threads)
    reward = reward_of(setup, engine)
    prompts = random_ids(setup.setting, rows // beams, PROMPT_TOKENS, "scoring", rows)
    beam_prefixes = random_ids(setup.setting, rows, NEW_TOKENS // 2, "beams", rows)
    rows_of_ids = [(prompt, beam_prefixes[i * beams + j]) for i, prompt in enumerate(prompts)
             for j in range(beams)]  # fmt: skip
    closing = len(reward.closing(setup.position))
    reward.clear_cache()
    for prefixes in ([(prompt, ()) for prompt in prompts], rows_of_ids):  # fills the cache
        reward.score([ScoreRequest(prompt, prefix, ((),)) for prompt, prefix in prefixes])
    rates: list[float] = []
    for number in range(ROUNDS):
        tokens = random_ids(setup.setting, rows, candidates, "candidates", rows, number)
        start = time.perf_counter()
        reward.score(
            [
                ScoreRequest(prompt, prefix, tuple((token,) for token in row))
                for (prompt, prefix), row in zip(rows_of_ids, tokens, strict=True)
            ]
        )
        synchronize(setup.setting.device)
        rates.append(rows * candidates * (1 + closing) / (time.perf_counter() - start))
    return max(rates)
