"""`jobs/bench.py search`: our search against a straightforward loop, and against the bare engines.

Ours: search actors under Ray, one a core. The loop: `jobs/benchmarks/search_loop.py`, one prompt
at a time, on all cores. The limit: the bare engines, first the policy's work, then the reward
model's, in as many processes as there are cores, without Ray and search (`search_limit.py`).
"""

import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
import torch
from rich.console import Console
from rich.table import Table

from actors.policy import PolicySpec
from actors.reward import RewardSpec
from actors.search import ModelEngines, Search, SearchActor
from actors.search_stream import search_all
from jobs.benchmarks.search_limit import limit_of
from jobs.benchmarks.search_loop import Loop
from jobs.benchmarks.search_rates import BestRates
from jobs.benchmarks.search_setting import (
    CASES,
    Case,
    Place,
    calibration_of,
    problems,
    save_models,
)
from jobs.benchmarks.setting import Setting, finish, name_of
from jobs.sweep import cluster
from orchestrator.checkpoints.checkpoint import load_policy, load_reward_model
from orchestrator.choices import Engine, Position
from orchestrator.conversations.chat import load_chat
from orchestrator.records import Cost
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.search.problem import Problem

ACTOR_CPUS = 0.1


def bench_search(
    names: Sequence[str],
    repeats: int,
    prompts: int,
    position: Position,
    setting: Setting,
    file: Path | None,
) -> None:
    """Measures, prints a table and a line of JSON, and writes it where ``file`` says."""
    console = Console(stderr=True)
    processes = 1 if setting.device == "cuda" else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        save_models(setting, Path(folder))
        place = Place(folder, position, setting, processes, 1)
        cluster.connect(console, dashboard=False)
        calibration = calibration_of(setting, Path(folder), position)
        results = []
        for name in names:
            case = CASES[name]
            case = replace(case, method=case.method.calibrated(calibration))
            console.print(f"{name} ...", highlight=False)
            results.append({"name": name, **_result(case, repeats, prompts, place, console)})
        ray.shutdown()
    Console(width=120).print(_table(results))
    line = json.dumps({"device": name_of(setting), "position": position, "results": results})
    print(line)
    if file is not None:
        file.write_text(line + "\n")


def _result(
    case: Case, repeats: int, prompts: int, place: Place, console: Console
) -> dict[str, object]:
    """Seconds a prompt of the three ways, in turn."""
    context = multiprocessing.get_context("spawn")
    ours, loops, limits, fastest, costs = [], [], [], [], []
    actors = search_actors(place)
    with (
        ProcessPoolExecutor(1, mp_context=context) as alone,
        ExitStack() as stack,
    ):
        bare = [
            stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
            for _ in range(place.processes)
        ]
        by_rates = case.ways == ("at the best rates",)
        rates = BestRates(bare, place, case) if by_rates else None
        search = Search(case.method, -(-prompts // place.processes))
        for repeat in range(-1, repeats):  # the first one warms up
            asked = problems(place.setting, prompts, repeat + 1)
            start = time.perf_counter()
            responses = asyncio.run(search_all(actors, search, asked))
            ours.append((time.perf_counter() - start) / prompts)
            few = asked[: case.loop_prompts if repeat >= 0 else 1]
            loops.append(alone.submit(_loop, place, case, few).result() / len(few))
            known = asked if repeat >= 0 else asked[: 2 * place.processes]
            halves = [known[n :: place.processes] for n in range(place.processes)]
            costs.append(sum((r.cost for r in responses), Cost()))
            limit, by = limit_of(bare, place, case, halves, costs[-1], rates)
            limits.append(limit / prompts)
            fastest.append(by)
            if repeat >= 0:
                console.print(
                    f"  ours {ours[-1]:.3g} s a prompt, loop {loops[-1]:.3g},"
                    f" limit {limits[-1]:.3g} ({by})",
                    highlight=False,
                )
    times = ours[1:], loops[1:], limits[1:]
    median = [statistics.median(own) for own in times]
    quotients = zip(*times, strict=True)
    ratios = [(loop / own, own / limit) for own, loop, limit in quotients]
    cost = costs[-1]
    return {
        "ours_s": median[0],
        "loop_s": median[1],
        "ratio": statistics.median(ratio for ratio, _ in ratios),
        "floor": case.floor if place.position == "open" else None,
        "limit_s": median[2],
        "over_limit": statistics.median(over for _, over in ratios),
        "ceiling": case.limit if place.position == "open" else None,
        "limit_by": list(dict.fromkeys(fastest[1:])),
        "policy_tokens": (cost.policy_tokens_computed) / prompts,
        "reward_tokens": cost.reward_tokens_computed / prompts,
    }


def search_actors(place: Place, engine: Engine = "transformers") -> list[Any]:
    """Search actors of both models, each with its threads."""
    setting = place.setting
    policy, reward = f"{place.folder}/policy", f"{place.folder}/reward"
    engines = ModelEngines(
        PolicySpec(
            policy,
            1.0,
            1.0,
            setting.device,
            place.threads,
            ends=place.ends,
            dtype=setting.dtype,
            engine=engine,
        ),
        RewardSpec(
            ScorerSpec(reward, engine=engine),
            place.position,
            policy,
            setting.device,
            place.threads,
            setting.dtype,
        ),
    )
    options = {"num_cpus": ACTOR_CPUS, "num_gpus": int(setting.device == "cuda")}
    actors = [
        SearchActor.options(**options).remote(engines)  # type: ignore[attr-defined]
        for _ in range(place.processes)
    ]
    ray.get([actor.ready.remote() for actor in actors])
    return actors


@lru_cache(maxsize=1)
def _loop_models(place: Place) -> Any:
    device, dtype = place.setting.device, place.setting.torch_dtype
    closing = load_chat(f"{place.folder}/reward").closing_ids if place.position == "closed" else ()
    return Loop(
        load_policy(f"{place.folder}/policy", dtype).to(device).eval(),
        load_reward_model(f"{place.folder}/reward", dtype).to(device).eval(),
        closing=closing,
    )


def _loop(place: Place, case: Case, asked: Sequence[Problem]) -> float:
    """Seconds of the straightforward loop over some prompts."""
    torch.set_num_threads(place.threads * place.processes)
    loop, method = _loop_models(place), case.method
    start = time.perf_counter()
    for problem in asked:
        loop.answer(problem, method)
    finish(place.setting.device)
    return time.perf_counter() - start


def _table(results: Sequence[dict[str, object]]) -> Table:
    table = Table(title="Search: seconds a prompt; ratio = loop / ours, over_limit = ours / limit")
    headings = ("name", "ours_s", "loop_s", "ratio", "floor", "limit_s", "over_limit", "ceiling",
                "policy_tokens", "reward_tokens")  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "name" else "right")
    for result in results:
        cells = [result[heading] for heading in headings]
        table.add_row(*(f"{c:.3g}" if isinstance(c, float) else str(c or "") for c in cells))
    return table
