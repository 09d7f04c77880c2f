"""`jobs/bench.py search --model smollm2`: a real small model's vocabulary, depth and steps.

Ours are search actors under Ray, by either engine, the faster of which counts: with transformers
one a core, with vLLM one for all cores. Beside them, in the same run: what one would write without
us (``small_loops.py``), vLLM alone on the same samples, and the engine's own time for the requests
of the search, all known in advance. Rates are tokens that the policy samples a second.
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
from jobs.benchmarks.search_setting import KNOWN, Case, Place, Way
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
SPINNING = {"GOMP_SPINCOUNT": "300000"}  # GNU OpenMP's own


def bench_small(names: Sequence[str], repeats: int, file: Path | None) -> None:
    """Measures, prints a table and a line of JSON, and writes it where ``file`` says."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        models = small_models(Path(folder))
        cluster.connect(console, dashboard=False)
        results = []
        for name in names:
            console.print(f"{name} ...", highlight=False)
            found = _result(SMALL_CASES[name], models, repeats, console)
            results.append({"name": name, **found})
        ray.shutdown()
    Console(width=120).print(_table(results))
    line = json.dumps({"device": name_of(SETTINGS["cpu"]), "model": "smollm2", "results": results})
    print(line)
    if file is not None:
        file.write_text(line + "\n")


def _result(case: SmallCase, models: SmallModels, repeats: int, console: Console) -> dict[str, Any]:
    """Tokens a second of all ways, in turn; the medians of the repeats."""
    there = importlib.util.find_spec("vllm") is not None
    engines: list[Engine] = ["transformers", "vllm"] if there else ["transformers"]
    other, way = LOOPS[case.method.name]
    rates: dict[str, list[float]] = {}
    over: list[float] = []
    for repeat in range(repeats):
        asked = small_problems(models, case, repeat)
        best = Cost()
        for engine in engines:
            cost, seconds = _ours(case, models, engine, asked)
            if seconds * best.policy_tokens_sampled <= best.seconds * cost.policy_tokens_sampled:
                best, fastest = replace(cost, seconds=seconds), engine
            rates.setdefault(engine, []).append(cost.policy_tokens_sampled / seconds)
        if there or way is not step_loop:
            few = asked[: case.loop_prompts]
            rates.setdefault(other, []).append(_apart(way, models, case, few))
        if not case.method.needs_scorer and there:
            rates.setdefault("vLLM alone", []).append(_apart(vllm_alone, models, case, asked))
        if isinstance(case.method, ChunkBeamSearch):
            over.append(best.seconds / _limit(case, models, asked, best, fastest))
        shown = ", ".join(f"{key} {own[-1]:.0f}" for key, own in rates.items())
        console.print(f"  tokens/s: {shown}", highlight=False)
    medians = {key: statistics.median(own) for key, own in rates.items()}
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
    case: SmallCase, models: SmallModels, engine: Engine, asked: Sequence[Problem]
) -> tuple[Cost, float]:
    """What the search cost, and its seconds; actors are loaded and warm before."""
    actors = search_actors(_place(models, engine), engine)
    max_concurrent = -(-len(asked) // len(actors))
    search = Search(case.method, max_concurrent)
    try:
        warm = [replace(problem, prompt_id=f"warm-{i}", max_new_tokens=2)
                for i, problem in enumerate(asked[: len(actors)])]  # fmt: skip
        asyncio.run(search_all(actors, search, warm))
        start = time.perf_counter()
        responses = asyncio.run(search_all(actors, search, asked))
        seconds = time.perf_counter() - start
    finally:
        for actor in actors:
            ray.kill(actor)
    cost = sum((response.cost for response in responses), Cost())
    chosen = sum(len(response.token_ids) for response in responses)  # ARGS samples none
    return replace(cost, policy_tokens_sampled=cost.policy_tokens_sampled or chosen), seconds


def _place(models: SmallModels, engine: Engine) -> Place:
    cores = len(os.sched_getaffinity(0))
    processes, threads = (cores, 1) if engine == "transformers" else (1, cores)
    return Place(models.folder, "closed", SETTINGS["cpu"], processes, threads, ends=True)


def _limit(
    case: SmallCase, models: SmallModels, asked: Sequence[Problem], cost: Cost, engine: Engine
) -> float:
    """Seconds of the search's bare engine for its requests, in its best way to batch them."""
    place = _place(models, engine)
    ways: tuple[Way, ...] = ("vLLM",)
    if engine == "transformers":
        ways = tuple(way for way in KNOWN if way != "vLLM")
    own = Case(case.method, 0.0, None, 0, ways)
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        bare = [stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
                for _ in range(place.processes)]  # fmt: skip
        parts = [asked[n :: place.processes] for n in range(place.processes)]
        seconds, _ = limit_of(bare, place, own, parts, cost, None)
    return seconds


def _apart(way: Loop, models: SmallModels, case: SmallCase, asked: Sequence[Problem]) -> float:
    """Tokens a second of another way, in a process that ends with it and has all cores.

    Its threads wait as OpenMP has them wait by itself.
    """
    context = multiprocessing.get_context("spawn")
    with patch.dict(os.environ, SPINNING), ProcessPoolExecutor(1, mp_context=context) as alone:
        alone.submit(torch.set_num_threads, len(os.sched_getaffinity(0))).result()
        warm = [replace(asked[0], max_new_tokens=2)]
        alone.submit(way, models, replace(case, new_tokens=2), warm).result()
        tokens, seconds = alone.submit(way, models, case, asked).result()
    return tokens / seconds


def _table(results: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="SmolLM2: tokens sampled a second; ratio = ours / the usual way")
    for heading in ("name", "tokens a second", "ratio", "bar", "over limit", "bar"):
        table.add_column(heading, justify="left" if heading.startswith(("n", "t")) else "right")
    for result in results:
        rates = result["tokens_per_second"].items()
        row = [result["name"], ", ".join(f"{key} {rate:.0f}" for key, rate in rates)]
        keys = ("ratio", "floor", "over_limit", "ceiling")
        row += ["" if result[key] is None else f"{result[key]:.3g}" for key in keys]
        table.add_row(*row)
    return table
