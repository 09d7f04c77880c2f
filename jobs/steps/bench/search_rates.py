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

from jobs.steps.bench.search_engines import Engine, engines, policy_of, reward_of
from jobs.steps.bench.search_setting import NEW, PROMPT, Case, Place, random_ids
from jobs.steps.bench.setting import finish
from orchestrator.search.args import ArgsParameters
from orchestrator.search.engines import SampleRequest, ScoreRequest

FIRST_ROWS = 16  # texts that a process works on at once; twice as many while that is faster
ROUNDS = 2  # of each; the better counts


@dataclass(frozen=True)
class Rate:
    """Tokens a second of all processes together, in the best batch size, of the best engine."""

    tokens: float
    rows: int
    engine: Engine

    def __str__(self) -> str:
        return f"{self.tokens:,.0f} tokens/s by {self.engine}, {self.rows} texts a process"


def best_rates(bare: Sequence[ProcessPoolExecutor], place: Place, case: Case) -> tuple[Rate, Rate]:
    """Of the policy's decoding, and of scoring candidates behind prefixes that were read."""
    if isinstance(case.parameters, ArgsParameters):
        beams, candidates = 1, case.parameters.k
    else:
        beams, candidates = case.parameters.beams, case.parameters.candidates

    def rate(measured: Callable[..., float], engine: Engine, rows: int, *shape: int) -> Rate:
        runs = [one.submit(measured, place, engine, rows, *shape) for one in bare]
        return Rate(sum(run.result() for run in runs), rows, engine)

    def best(measured: Callable[..., float], *shape: int) -> Rate:
        found = []
        for engine in engines(place, scores=measured is _scoring):
            rows = max(FIRST_ROWS, beams)
            rates = [rate(measured, engine, rows, *shape)]
            while rates[-1].rows == rows:  # as long as the last one is the best
                rows *= 2
                rates.append(rate(measured, engine, rows, *shape))
                rates.sort(key=lambda one: one.tokens)
            found.append(rates[-1])
        return max(found, key=lambda one: one.tokens)

    return best(_decoding, beams), best(_scoring, beams, candidates)


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
