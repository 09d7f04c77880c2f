"""`jobs/bench.py threads`: OpenMP threads that wait as ours do, that sleep, and that spin.

Each row is a process of its own, since the setting is read when torch is loaded: on an idle
machine, and beside a process that keeps one core busy. The model has the embedded policy's size.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from orchestrator import THREADS
from orchestrator.config.load import ROOT
from orchestrator.training.speed import LENGTH, ROWS, TOKENS, Shape, works

EMBEDDED = Shape(500, 128, 384, 4, 4, 4)  # the world's policy
SECONDS = 3.0  # of each work; its mean counts, since other work makes some rounds slow
# Threads are torch's own where it comes first: the project's import decides how they wait.
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "as ours": ("import orchestrator, torch", {}),
    "sleep": ("import torch", {"OMP_WAIT_POLICY": "PASSIVE"}),
    "spin": ("import torch", {}),
}
SHOW = "from jobs.benchmarks.threads import show_means; show_means({threads})"
BUSY = "while True: pass"


def bench_threads(counts: Sequence[int], file: Path | None) -> None:
    """Prints the table, then one line of JSON."""
    results = []
    for beside in ("nothing", "a busy process"):
        with _busy(beside != "nothing"):
            for threads in counts:
                for waiting in WAYS if threads > 1 else ("sleep",):
                    row = {"threads": threads, "they wait": waiting, "beside": beside}
                    results.append({**row, **_means(waiting, threads)})
    title = f"ms: a step of {TOKENS} tokens, reading them, a token of {ROWS} texts of {LENGTH}"
    table = Table(title=f"{title}; {os.cpu_count()} cores, torch {torch.__version__}")
    for heading in results[0]:
        table.add_column(heading, justify="right")
    for row in results:
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    found = json.dumps({"cores": os.cpu_count(), "torch": torch.__version__, "results": results})
    print(found)
    if file is not None:
        file.write_text(found + "\n")


def show_means(threads: int) -> None:
    """Prints the mean milliseconds of each work in this process."""
    torch.set_num_threads(threads)
    found = {}
    for name, work in works(EMBEDDED, "float32").items():
        work()
        started, rounds = time.perf_counter(), 0
        while time.perf_counter() - started < SECONDS:
            work()
            rounds += 1
        found[name] = 1e3 * (time.perf_counter() - started) / rounds
    print(json.dumps(found))


def _means(waiting: str, threads: int) -> dict[str, Any]:
    imports, variables = WAYS[waiting]
    own = {name: value for name, value in os.environ.items() if name not in THREADS}
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; {SHOW.format(threads=threads)}"],
        cwd=ROOT, env={**own, **variables}, stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


@contextmanager
def _busy(wanted: bool) -> Iterator[None]:
    """A process that keeps one core busy, where it is wanted."""
    process = subprocess.Popen([sys.executable, "-c", BUSY]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()
