"""The bare-engine limit of methods that look at single tokens: token counts over the best rates.

ARGS and TBS cannot know their requests in advance. What they compute is put against the rates at
which bare engines, all cores busy, decode, and score k candidates behind prefixes that were read:
each in its best batch size, by the fastest engine that there is. What an engine reads again of a
prompt or prefix counts for nothing.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from jobs.benchmarks.search_engines import Engine, engines, policy_of, reward_of
from jobs.benchmarks.search_setting import NEW, PROMPT, Case, Place, random_ids
from jobs.benchmarks.setting import finish
from orchestrator.search.engines import SampleRequest, ScoreRequest

FIRST_ROWS = 64  # texts that a process works on at once, then twice as many, and so on,
FURTHER = 2  # as far as so many times the best number yet
HOPELESS = 1 / 3  # of the best rate so far: an engine that begins below it is not tried further
ROUNDS = 3  # of each; the best counts


@dataclass(frozen=True)
class Rate:
    """Tokens a second of all processes together, in a batch size, of an engine."""

    tokens: float
    rows: int
    engine: Engine

    def __str__(self) -> str:
        return f"{self.tokens:,.0f} tokens/s by {self.engine}, {self.rows} texts a process"


class BestRates:
    """Rates of the engine and batch size that were best when they were first asked for.

    Args:
        bare: a process for each core.
        place: of the models.
        case: whose beams and candidates they have.
    """

    def __init__(self, bare: Sequence[ProcessPoolExecutor], place: Place, case: Case) -> None:
        counts = {"beams": 1, **case.method.candidate_counts}
        beams, candidates = counts["beams"], counts.get("k") or counts["candidates"]
        self._bare, self._place, self._first = bare, place, max(FIRST_ROWS, beams)
        self._asked: list[tuple[Callable[..., float], tuple[int, ...]]]
        self._asked = [(_decoding, (beams,)), (_scoring, (beams, candidates))]
        self._best: list[Rate] = []

    def measure(self) -> list[Rate]:
        """Of the policy's decoding, and of scoring candidates behind prefixes that were read."""
        if self._best:
            self._best = [
                self._rate(measured, shape, best.engine, best.rows)
                for (measured, shape), best in zip(self._asked, self._best, strict=True)
            ]
        else:
            self._best = [self._search(measured, shape) for measured, shape in self._asked]
        return self._best

    def _search(self, measured: Callable[..., float], shape: tuple[int, ...]) -> Rate:
        best: Rate | None = None
        for engine in engines(self._place, scores=measured is _scoring):
            own = self._rate(measured, shape, engine, self._first)
            rows = own.rows
            if best is not None and own.tokens < HOPELESS * best.tokens:
                continue
            while rows < FURTHER * own.rows:
                rows *= 2
                found = self._rate(measured, shape, engine, rows)
                own = max(own, found, key=lambda one: one.tokens)
            best = own if best is None else max(best, own, key=lambda one: one.tokens)
        assert best is not None
        return best

    def _rate(
        self, measured: Callable[..., float], shape: tuple[int, ...], engine: Engine, rows: int
    ) -> Rate:
        runs = [one.submit(measured, self._place, engine, rows, *shape) for one in self._bare]
        return Rate(sum(run.result() for run in runs), rows, engine)


def _decoding(place: Place, engine: Engine, rows: int, beams: int) -> float:
    """Tokens a second of one process: prompts that are new, ``beams`` responses to each."""
    torch.set_num_threads(place.threads)
    policy = policy_of(place, engine)
    rates: list[float] = []
    for number in range(ROUNDS):
        prompts = random_ids(place.setting, rows // beams, PROMPT, "decoding", rows, number)
        keys = tuple(range(beams))
        policy.forget()
        start = time.perf_counter()
        policy.sample([SampleRequest(prompt, (), keys, NEW) for prompt in prompts])
        finish(place.setting.device)
        rates.append((len(prompts) * PROMPT + rows * (NEW - 1)) / (time.perf_counter() - start))
    return max(rates)


def _scoring(place: Place, engine: Engine, rows: int, beams: int, candidates: int) -> float:
    """Tokens a second of one process: single candidates of beams in the middle of responses."""
    torch.set_num_threads(place.threads)
    reward = reward_of(place, engine)
    prompts = random_ids(place.setting, rows // beams, PROMPT, "scoring", rows)
    ends = random_ids(place.setting, rows, NEW // 2, "beams", rows)
    texts = [(prompt, ends[i * beams + j]) for i, prompt in enumerate(prompts)
             for j in range(beams)]  # fmt: skip
    closing = len(reward.closing(place.position))
    reward.forget()
    for prefixes in ([(prompt, ()) for prompt in prompts], texts):  # they are read
        reward.score([ScoreRequest(prompt, prefix, ((),)) for prompt, prefix in prefixes])
    rates: list[float] = []
    for number in range(ROUNDS):
        tokens = random_ids(place.setting, rows, candidates, "candidates", rows, number)
        start = time.perf_counter()
        reward.score(
            [
                ScoreRequest(prompt, prefix, tuple((token,) for token in own))
                for (prompt, prefix), own in zip(texts, tokens, strict=True)
            ]
        )
        finish(place.setting.device)
        rates.append(rows * candidates * (1 + closing) / (time.perf_counter() - start))
    return max(rates)
