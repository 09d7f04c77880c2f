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

from jobs.benchmarks.search_engines import Engine, engines, policy_of, reward_of
from jobs.benchmarks.search_setting import NEW, PROMPT, Case, ModelSetup, random_ids
from jobs.benchmarks.setting import finish
from orchestrator.search.engines import SampleRequest, ScoreRequest

FIRST_ROWS = 64  # sequences of a batch at first; the number is doubled while it helps,
FURTHER = 2  # up to this multiple of the best number
HOPELESS = 1 / 3  # share of the best rate below which an engine is not tried further
ROUNDS = 3  # repetitions of each measurement; the best counts


@dataclass(frozen=True)
class Rate:
    """Tokens per second of all processes together, with an engine and a batch size."""

    tokens: float
    rows: int
    engine: Engine

    def __str__(self) -> str:
        return f"{self.tokens:,.0f} tokens/s by {self.engine}, {self.rows} sequences per process"


class BestRates:
    """The rates of the best engine and batch size, which the first measurement chooses.

    Args:
        bare: a process for each core.
        setup: the models.
        case: the search method, for its number of beams and candidates.
    """

    def __init__(self, bare: Sequence[ProcessPoolExecutor], setup: ModelSetup, case: Case) -> None:
        counts = {"beams": 1, **case.method.candidate_counts}
        beams, candidates = counts["beams"], counts.get("k") or counts["candidates"]
        self._bare, self._setup, self._first = bare, setup, max(FIRST_ROWS, beams)
        self._measurements: list[tuple[Callable[..., float], tuple[int, ...]]]
        self._measurements = [(_decoding, (beams,)), (_scoring, (beams, candidates))]
        self._best: list[Rate] = []

    def measure(self) -> list[Rate]:
        """Return the rates of decoding, and of scoring candidates of cached prefixes."""
        if self._best:
            self._best = [
                self._rate(measured, shape, best.engine, best.rows)
                for (measured, shape), best in zip(self._measurements, self._best, strict=True)
            ]
        else:
            self._best = [self._search(measured, shape) for measured, shape in self._measurements]
        return self._best

    def _search(self, measured: Callable[..., float], shape: tuple[int, ...]) -> Rate:
        best: Rate | None = None
        for engine in engines(self._setup, scores=measured is _scoring):
            fastest = self._rate(measured, shape, engine, self._first)
            rows = fastest.rows
            if best is not None and fastest.tokens < HOPELESS * best.tokens:
                continue
            while rows < FURTHER * fastest.rows:
                rows *= 2
                rate = self._rate(measured, shape, engine, rows)
                fastest = max(fastest, rate, key=lambda one: one.tokens)
            best = fastest if best is None else max(best, fastest, key=lambda one: one.tokens)
        assert best is not None
        return best

    def _rate(
        self, measured: Callable[..., float], shape: tuple[int, ...], engine: Engine, rows: int
    ) -> Rate:
        runs = [one.submit(measured, self._setup, engine, rows, *shape) for one in self._bare]
        return Rate(sum(run.result() for run in runs), rows, engine)


def _decoding(setup: ModelSetup, engine: Engine, rows: int, beams: int) -> float:
    """Return the tokens per second of one process that samples ``beams`` responses to prompts."""
    torch.set_num_threads(setup.threads)
    policy = policy_of(setup, engine)
    rates: list[float] = []
    for number in range(ROUNDS):
        prompts = random_ids(setup.setting, rows // beams, PROMPT, "decoding", rows, number)
        keys = tuple(range(beams))
        policy.clear_cache()
        start = time.perf_counter()
        policy.sample([SampleRequest(prompt, (), keys, NEW) for prompt in prompts])
        finish(setup.setting.device)
        rates.append((len(prompts) * PROMPT + rows * (NEW - 1)) / (time.perf_counter() - start))
    return max(rates)


def _scoring(setup: ModelSetup, engine: Engine, rows: int, beams: int, candidates: int) -> float:
    """Return the tokens per second of one process that scores one-token candidates of beams."""
    torch.set_num_threads(setup.threads)
    reward = reward_of(setup, engine)
    prompts = random_ids(setup.setting, rows // beams, PROMPT, "scoring", rows)
    ends = random_ids(setup.setting, rows, NEW // 2, "beams", rows)
    rows_of_ids = [(prompt, ends[i * beams + j]) for i, prompt in enumerate(prompts)
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
        finish(setup.setting.device)
        rates.append(rows * candidates * (1 + closing) / (time.perf_counter() - start))
    return max(rates)
