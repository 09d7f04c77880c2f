"""Implement `jobs/bench.py search --model smollm2`: search with a real small model.

*Ours* are search actors under Ray with the faster engine: transformers with one actor per core, or
vLLM with one actor. They are compared with code without this project (``smollm2_baselines.py``),
with vLLM alone on the same samples, and with the bare engine on the recorded requests of the search
(the limit). Rates are sampled tokens per second.
"""

import asyncio
import importlib.util
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import torch
from rich.console import Console
from rich.table import Table

from actors.search import Search
from actors.search_stream import search_all
from jobs.benchmarks.search import search_actors
from jobs.benchmarks.search_cases import REPLAYS, Case, ModelSetup, Way
from jobs.benchmarks.search_limit import limit_of
from jobs.benchmarks.setting import SETTINGS, device_description
from jobs.benchmarks.smollm2_baselines import (
    TokensAndSeconds,
    generated,
    generated_and_scored,
    plain_loop,
    step_loop,
    vllm_alone,
)
from jobs.benchmarks.smollm2_cases import (
    SMOLLM2_CASES,
    SmolLM2Case,
    SmolLM2Models,
    smollm2_models,
    smollm2_problems,
)
from jobs.sweep import cluster
from orchestrator.choices import Engine
from orchestrator.records import Cost
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.search.problem import Problem

Baseline = Callable[[SmolLM2Models, SmolLM2Case, Sequence[Problem]], TokensAndSeconds]
# Name and implementation by search method.
BASELINES: dict[str, tuple[str, Baseline]] = {
    "vote": ("generate", generated),
    "bon": ("generate and plain scoring", generated_and_scored),
    "cbs": ("plain loop", plain_loop),
    "step_beam": ("vLLM and plain scoring", step_loop),
    "args": ("plain loop", plain_loop),
}
DEFAULT_SPIN_COUNT = {"GOMP_SPINCOUNT": "300000"}  # of GNU OpenMP


def bench_smollm2(names: Sequence[str], repeats: int, file: Path | None) -> None:
    """Measure the cases, print a table and a line of JSON, and write the line to ``file``."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        models = smollm2_models(Path(folder))
        cluster.connect(console, dashboard=False)
        results = []
        for name in names:
            console.print(f"{name} ...", highlight=False)
            result = _result(SMOLLM2_CASES[name], models, repeats, console)
            results.append({"name": name, **result})
        ray.shutdown()
    Console(width=120).print(_table(results))
    device = device_description(SETTINGS["cpu"])
    line = json.dumps({"device": device, "model": "smollm2", "results": results})
    print(line)
    if file is not None:
        file.write_text(line + "\n")


def _result(
    case: SmolLM2Case, models: SmolLM2Models, repeats: int, console: Console
) -> dict[str, Any]:
    """Return the median tokens per second of each implementation, measured alternately."""
    has_vllm = importlib.util.find_spec("vllm") is not None
    engines: list[Engine] = ["transformers", "vllm"] if has_vllm else ["transformers"]
    baseline_name, baseline = BASELINES[case.method.name]
    rates: dict[str, list[float]] = {}
    over: list[float] = []
    for repeat in range(repeats):
        problems = smollm2_problems(models, case, repeat)
        runs = {engine: _ours(case, models, engine, problems) for engine in engines}
        for engine, (tokens, seconds) in runs.items():
            rates.setdefault(engine, []).append(tokens / seconds)
        if has_vllm or baseline is not step_loop:
            rate = _run_in_subprocess(baseline, models, case, problems[: case.loop_prompts])
            rates.setdefault(baseline_name, []).append(rate)
        if not case.method.needs_scorer and has_vllm:
            rate = _run_in_subprocess(vllm_alone, models, case, problems)
            rates.setdefault("vLLM alone", []).append(rate)
        if isinstance(case.method, ChunkBeamSearch):
            fastest = max(engines, key=lambda engine: rates[engine][-1])  # in this repeat
            over.append(runs[fastest][1] / _limit(case, models, problems, fastest))
        shown = ", ".join(f"{key} {values[-1]:.0f}" for key, values in rates.items())
        console.print(f"  tokens/s: {shown}", highlight=False)
    return _summary(case, engines, rates, over, baseline_name)


def _summary(
    case: SmolLM2Case,
    engines: Sequence[Engine],
    rates: Mapping[str, Sequence[float]],
    over: Sequence[float],
    baseline_name: str,
) -> dict[str, Any]:
    """Return the medians over the repeats; the fastest engine is that with the highest median."""
    medians = {key: statistics.median(values) for key, values in rates.items()}
    fastest = max(engines, key=lambda engine: medians[engine])
    ours = medians[fastest]
    if "vLLM alone" in medians:
        over = [medians["vLLM alone"] / ours]
    return {
        "tokens_per_second": medians,
        "fastest": fastest,
        "ratio": ours / medians[baseline_name] if baseline_name in medians else None,
        "floor": case.floor,
        "over_limit": statistics.median(over) if over else None,
        "ceiling": case.ceiling,
    }


def _ours(
    case: SmolLM2Case, models: SmolLM2Models, engine: Engine, problems: Sequence[Problem]
) -> TokensAndSeconds:
    """Run the search actors after a warm-up; return the tokens sampled and the seconds."""
    actors = search_actors(_setup(models, engine), engine)
    max_concurrent = -(-len(problems) // len(actors))
    search = Search(case.method, max_concurrent)
    try:
        warm = [replace(problem, prompt_id=f"warm-{i}", max_new_tokens=2)
                for i, problem in enumerate(problems[: len(actors)])]  # fmt: skip
        asyncio.run(search_all(actors, search, warm))
        start = time.perf_counter()
        responses = asyncio.run(search_all(actors, search, problems))
        seconds = time.perf_counter() - start
    finally:
        for actor in actors:
            ray.kill(actor)
    sampled = sum(response.cost.policy_tokens_sampled for response in responses)
    chosen = sum(len(response.token_ids) for response in responses)  # ARGS does not sample
    return sampled or chosen, seconds


def _setup(models: SmolLM2Models, engine: Engine) -> ModelSetup:
    cores = len(os.sched_getaffinity(0))
    processes, threads = (cores, 1) if engine == "transformers" else (1, cores)
    return ModelSetup(
        models.folder, "closed", SETTINGS["cpu"], processes, threads, stop_at_eos=True
    )


def _limit(
    case: SmolLM2Case, models: SmolLM2Models, problems: Sequence[Problem], engine: Engine
) -> float:
    """Return the seconds of the bare engine for the requests of the search, in its best batches."""
    setup = _setup(models, engine)
    ways: tuple[Way, ...] = ("vLLM",)
    if engine == "transformers":
        ways = tuple(way for way in REPLAYS if way != "vLLM")
    limit_case = Case(case.method, 0.0, None, 0, ways)
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        workers = [stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
                   for _ in range(setup.processes)]  # fmt: skip
        shards = [problems[n :: setup.processes] for n in range(setup.processes)]
        seconds, _ = limit_of(workers, setup, limit_case, shards, Cost(), None)
    return seconds


def _run_in_subprocess(
    baseline: Baseline, models: SmolLM2Models, case: SmolLM2Case, problems: Sequence[Problem]
) -> float:
    """Return the tokens per second of a baseline, in a separate process on all cores.

    The process uses GNU OpenMP's default spin count.
    """
    context = multiprocessing.get_context("spawn")
    with (
        patch.dict(os.environ, DEFAULT_SPIN_COUNT),
        ProcessPoolExecutor(1, mp_context=context) as alone,
    ):
        alone.submit(torch.set_num_threads, len(os.sched_getaffinity(0))).result()
        warm = [replace(problems[0], max_new_tokens=2)]
        alone.submit(baseline, models, replace(case, new_tokens=2), warm).result()
        tokens, seconds = alone.submit(baseline, models, case, problems).result()
    return tokens / seconds


def _table(results: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="SmolLM2: sampled tokens per second; ratio = ours / baseline")
    headings = ("name", "tokens per second", "ratio", "min ratio", "over limit", "max over limit")
    for heading in headings:
        table.add_column(heading, justify="left" if heading.startswith(("n", "t")) else "right")
    for result in results:
        rates = result["tokens_per_second"].items()
        row = [result["name"], ", ".join(f"{key} {rate:.0f}" for key, rate in rates)]
        keys = ("ratio", "floor", "over_limit", "ceiling")
        row += ["" if result[key] is None else f"{result[key]:.3g}" for key in keys]
        table.add_row(*row)
    return table
