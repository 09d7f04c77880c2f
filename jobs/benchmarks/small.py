"""Implement `jobs/bench.py search --model smollm2`: search with a real small model.

*Ours* are search actors under Ray with the faster engine: transformers with one actor per core, or
vLLM with one actor. They are compared with code without this project (``small_loops.py``), with
vLLM alone on the same samples, and with the bare engine on the recorded requests of the search (the
limit). Rates are sampled tokens per second.
"""

import asyncio
import importlib.util
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
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
from jobs.benchmarks.search_limit import limit_of
from jobs.benchmarks.search_setting import REPLAYS, Case, ModelSetup, Way
from jobs.benchmarks.setting import SETTINGS, name_of
from jobs.benchmarks.small_loops import (
    Rate,
    generated,
    generated_and_scored,
    plain_loop,
    step_loop,
    vllm_alone,
)
from jobs.benchmarks.small_setting import (
    SMALL_CASES,
    SmallCase,
    SmallModels,
    small_models,
    small_problems,
)
from jobs.sweep import cluster
from orchestrator.choices import Engine
from orchestrator.records import Cost
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.search.problem import Problem

Loop = Callable[[SmallModels, SmallCase, Sequence[Problem]], Rate]
LOOPS: dict[str, tuple[str, Loop]] = {
    "vote": ("generate", generated),
    "bon": ("generate and plain scoring", generated_and_scored),
    "cbs": ("plain loop", plain_loop),
    "step_beam": ("vLLM and plain scoring", step_loop),
    "args": ("plain loop", plain_loop),
}
SPINNING = {"GOMP_SPINCOUNT": "300000"}  # the default of GNU OpenMP


def bench_small(names: Sequence[str], repeats: int, file: Path | None) -> None:
    """Measure the cases, print a table and a line of JSON, and write the line to ``file``."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        models = small_models(Path(folder))
        cluster.connect(console, dashboard=False)
        results = []
        for name in names:
            console.print(f"{name} ...", highlight=False)
            result = _result(SMALL_CASES[name], models, repeats, console)
            results.append({"name": name, **result})
        ray.shutdown()
    Console(width=120).print(_table(results))
    line = json.dumps({"device": name_of(SETTINGS["cpu"]), "model": "smollm2", "results": results})
    print(line)
    if file is not None:
        file.write_text(line + "\n")


def _result(case: SmallCase, models: SmallModels, repeats: int, console: Console) -> dict[str, Any]:
    """Return the median tokens per second of each implementation, measured alternately."""
    has_vllm = importlib.util.find_spec("vllm") is not None
    engines: list[Engine] = ["transformers", "vllm"] if has_vllm else ["transformers"]
    other, way = LOOPS[case.method.name]
    rates: dict[str, list[float]] = {}
    over: list[float] = []
    for repeat in range(repeats):
        problems = small_problems(models, case, repeat)
        best = Cost()
        for engine in engines:
            cost, seconds = _ours(case, models, engine, problems)
            if seconds * best.policy_tokens_sampled <= best.seconds * cost.policy_tokens_sampled:
                best, fastest = replace(cost, seconds=seconds), engine
            rates.setdefault(engine, []).append(cost.policy_tokens_sampled / seconds)
        if has_vllm or way is not step_loop:
            few = problems[: case.loop_prompts]
            rates.setdefault(other, []).append(_apart(way, models, case, few))
        if not case.method.needs_scorer and has_vllm:
            rates.setdefault("vLLM alone", []).append(_apart(vllm_alone, models, case, problems))
        if isinstance(case.method, ChunkBeamSearch):
            over.append(best.seconds / _limit(case, models, problems, best, fastest))
        shown = ", ".join(f"{key} {values[-1]:.0f}" for key, values in rates.items())
        console.print(f"  tokens/s: {shown}", highlight=False)
    medians = {key: statistics.median(values) for key, values in rates.items()}
    ours = max(medians[engine] for engine in engines)
    if "vLLM alone" in medians:
        over = [medians["vLLM alone"] / ours]
    return {
        "tokens_per_second": medians,
        "fastest": fastest,
        "ratio": ours / medians[other] if other in medians else None,
        "floor": case.floor,
        "over_limit": statistics.median(over) if over else None,
        "ceiling": case.limit,
    }


def _ours(
    case: SmallCase, models: SmallModels, engine: Engine, problems: Sequence[Problem]
) -> tuple[Cost, float]:
    """Run the search actors after a warm-up; return the cost of the search and its seconds."""
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
    cost = sum((response.cost for response in responses), Cost())
    chosen = sum(len(response.token_ids) for response in responses)  # ARGS does not sample
    return replace(cost, policy_tokens_sampled=cost.policy_tokens_sampled or chosen), seconds


def _setup(models: SmallModels, engine: Engine) -> ModelSetup:
    cores = len(os.sched_getaffinity(0))
    processes, threads = (cores, 1) if engine == "transformers" else (1, cores)
    return ModelSetup(
        models.folder, "closed", SETTINGS["cpu"], processes, threads, stop_at_eos=True
    )


def _limit(
    case: SmallCase, models: SmallModels, problems: Sequence[Problem], cost: Cost, engine: Engine
) -> float:
    """Return the seconds of the bare engine for the requests of the search, in its best batches."""
    setup = _setup(models, engine)
    ways: tuple[Way, ...] = ("vLLM",)
    if engine == "transformers":
        ways = tuple(way for way in REPLAYS if way != "vLLM")
    limit_case = Case(case.method, 0.0, None, 0, ways)
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        bare = [stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
                for _ in range(setup.processes)]  # fmt: skip
        parts = [problems[n :: setup.processes] for n in range(setup.processes)]
        seconds, _ = limit_of(bare, setup, limit_case, parts, cost, None)
    return seconds


def _apart(way: Loop, models: SmallModels, case: SmallCase, problems: Sequence[Problem]) -> float:
    """Return the tokens per second of a baseline, in a separate process on all cores.

    Its threads wait in OpenMP's default way.
    """
    context = multiprocessing.get_context("spawn")
    with patch.dict(os.environ, SPINNING), ProcessPoolExecutor(1, mp_context=context) as alone:
        alone.submit(torch.set_num_threads, len(os.sched_getaffinity(0))).result()
        warm = [replace(problems[0], max_new_tokens=2)]
        alone.submit(way, models, replace(case, new_tokens=2), warm).result()
        tokens, seconds = alone.submit(way, models, case, problems).result()
    return tokens / seconds


def _table(results: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="SmolLM2: sampled tokens per second; ratio = ours / the usual way")
    for heading in ("name", "tokens per second", "ratio", "bar", "over limit", "bar"):
        table.add_column(heading, justify="left" if heading.startswith(("n", "t")) else "right")
    for result in results:
        rates = result["tokens_per_second"].items()
        row = [result["name"], ", ".join(f"{key} {rate:.0f}" for key, rate in rates)]
        keys = ("ratio", "floor", "over_limit", "ceiling")
        row += ["" if result[key] is None else f"{result[key]:.3g}" for key in keys]
        table.add_row(*row)
    return table
