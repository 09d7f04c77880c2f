"""Implement `jobs/bench.py search`: search actors against a plain loop and the bare engines.

Each case compares three measurements. *Ours*: search actors under Ray, one per core. *The loop*
(`search_loop.py`): a plain implementation that searches one prompt at a time on all cores. *The
limit* (`search_limit.py`): the bare engines without Ray and without search, in one process per
core; they process the policy's requests first, then the reward model's.
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

import ray
import torch
from ray.actor import ActorHandle
from rich.console import Console
from rich.table import Table

from actors.policy import PolicySpec
from actors.reward import RewardSpec
from actors.search import ModelEngines, Search, SearchActor
from actors.search_stream import search_all
from jobs.benchmarks.search_cases import (
    CASES,
    Case,
    ModelSetup,
    calibration_of,
    random_problems,
    save_models,
)
from jobs.benchmarks.search_limit import limit_of
from jobs.benchmarks.search_loop import Loop
from jobs.benchmarks.search_rates import BestRates
from jobs.benchmarks.setting import Setting, device_description, synchronize
from jobs.sweep import cluster
from orchestrator.checkpoints.checkpoint import load_policy, load_reward_model
from orchestrator.choices import Engine, Position
from orchestrator.conversations.chat import load_chat
from orchestrator.records import Cost
from orchestrator.scorers.spec import ScorerSpec
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
    """Measure the cases, print a table and a line of JSON, and write the line to ``file``."""
    console = Console(stderr=True)
    processes = 1 if setting.device == "cuda" else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        save_models(setting, Path(folder))
        setup = ModelSetup(folder, position, setting, processes, 1)
        cluster.connect(console, dashboard=False)
        calibration = calibration_of(setting, Path(folder), position)
        results = []
        for name in names:
            case = CASES[name]
            case = replace(case, method=case.method.calibrated(calibration))
            console.print(f"{name} ...", highlight=False)
            results.append({"name": name, **_result(case, repeats, prompts, setup, console)})
        ray.shutdown()
    Console(width=120).print(_table(results))
    line = json.dumps(
        {"device": device_description(setting), "position": position, "results": results}
    )
    print(line)
    if file is not None:
        file.write_text(line + "\n")


def _result(
    case: Case, repeats: int, prompts: int, setup: ModelSetup, console: Console
) -> dict[str, object]:
    """Return the seconds per prompt of ours, the loop and the limit, measured alternately."""
    context = multiprocessing.get_context("spawn")
    ours, loops, limits, fastest, costs = [], [], [], [], []
    actors = search_actors(setup)
    with (
        ProcessPoolExecutor(1, mp_context=context) as alone,
        ExitStack() as stack,
    ):
        workers = [
            stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
            for _ in range(setup.processes)
        ]
        rates = None if case.ways else BestRates(workers, setup, case)
        search = Search(case.method, -(-prompts // setup.processes))
        for repeat in range(-1, repeats):  # the first one is a warm-up
            problems = random_problems(setup.setting, prompts, repeat + 1)
            start = time.perf_counter()
            responses = asyncio.run(search_all(actors, search, problems))
            ours.append((time.perf_counter() - start) / prompts)
            few = problems[: case.loop_prompts if repeat >= 0 else 1]
            loops.append(alone.submit(_loop, setup, case, few).result() / len(few))
            limited = problems if repeat >= 0 else problems[: 2 * setup.processes]
            shards = [limited[n :: setup.processes] for n in range(setup.processes)]
            costs.append(sum((r.cost for r in responses), Cost()))
            limit, by = limit_of(workers, setup, case, shards, costs[-1], rates)
            limits.append(limit / prompts)
            fastest.append(by)
            if repeat >= 0:
                console.print(
                    f"  ours {ours[-1]:.3g} s a prompt, loop {loops[-1]:.3g},"
                    f" limit {limits[-1]:.3g} ({by})",
                    highlight=False,
                )
    times = ours[1:], loops[1:], limits[1:]
    median = [statistics.median(seconds) for seconds in times]
    ratios = [(loop / our, our / limit) for our, loop, limit in zip(*times, strict=True)]
    cost = costs[-1]
    return {
        "ours_s": median[0],
        "loop_s": median[1],
        "ratio": statistics.median(ratio for ratio, _ in ratios),
        "floor": case.floor if setup.position == "open" else None,
        "limit_s": median[2],
        "over_limit": statistics.median(over for _, over in ratios),
        "ceiling": case.ceiling if setup.position == "open" else None,
        "limit_by": list(dict.fromkeys(fastest[1:])),
        "policy_tokens": (cost.policy_tokens_computed) / prompts,
        "reward_tokens": cost.reward_tokens_computed / prompts,
    }


def search_actors(setup: ModelSetup, engine: Engine = "transformers") -> list[ActorHandle]:
    """Start search actors with both models, and wait until these are loaded."""
    setting = setup.setting
    policy, reward = f"{setup.folder}/policy", f"{setup.folder}/reward"
    engines = ModelEngines(
        PolicySpec(
            policy,
            1.0,
            1.0,
            setting.device,
            setup.threads,
            stop_at_eos=setup.stop_at_eos,
            dtype=setting.dtype,
            engine=engine,
        ),
        RewardSpec(
            ScorerSpec(reward, engine=engine),
            setup.position,
            policy,
            setting.device,
            setup.threads,
            setting.dtype,
        ),
    )
    actors = [
        SearchActor.options(  # type: ignore[attr-defined]
            num_cpus=ACTOR_CPUS, num_gpus=int(setting.device == "cuda")
        ).remote(engines)
        for _ in range(setup.processes)
    ]
    ray.get([actor.ready.remote() for actor in actors])
    return actors


@lru_cache(maxsize=1)
def _loop_models(setup: ModelSetup) -> Loop:
    device, dtype = setup.setting.device, setup.setting.torch_dtype
    closing = load_chat(f"{setup.folder}/reward").closing_ids if setup.position == "closed" else ()
    return Loop(
        load_policy(f"{setup.folder}/policy", dtype).to(device).eval(),
        load_reward_model(f"{setup.folder}/reward", dtype).to(device).eval(),
        closing=closing,
    )


def _loop(setup: ModelSetup, case: Case, problems: Sequence[Problem]) -> float:
    """Return the seconds that the plain loop takes for some prompts."""
    torch.set_num_threads(setup.threads * setup.processes)
    loop, method = _loop_models(setup), case.method
    start = time.perf_counter()
    for problem in problems:
        loop.answer(problem, method)
    synchronize(setup.setting.device)
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
