"""Implement `jobs/bench.py threads`: compare the ways in which OpenMP threads wait.

The ways are the project's setting (spin 2,000 times, then sleep), sleep at once, and spin.

Each row runs in a separate process, since torch reads the setting at import. Each is measured on an
idle machine and beside a process that keeps one core busy. The model has the size of the embedded
policy.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from orchestrator import THREADS
from orchestrator.config.load import ROOT
from orchestrator.training.speed import LENGTH, ROWS, TOKENS, Shape, timed_functions

EMBEDDED = Shape(500, 128, 384, 4, 4, 4)  # the policy of the embedded world
SECONDS = 3.0  # duration of each measurement; the mean counts
# Importing the project before torch decides how threads wait.
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "as ours": ("import orchestrator, torch", {}),
    "sleep": ("import torch", {"OMP_WAIT_POLICY": "PASSIVE"}),
    "spin": ("import torch", {}),
}
SHOW = "from jobs.benchmarks.threads import show_means; show_means({threads})"
BUSY = "while True: pass"


def bench_threads(counts: Sequence[int], file: Path | None) -> None:
    """Measure each way, and print a table and a line of JSON."""
    results = []
    for beside in ("nothing", "a busy process"):
        with _busy(beside != "nothing"):
            for threads in counts:
                for waiting in WAYS if threads > 1 else ("sleep",):
                    row = {"threads": threads, "they wait": waiting, "beside": beside}
                    results.append({**row, **_means(waiting, threads)})
    title = f"ms: training step and forward of {TOKENS} tokens, decoding step of {ROWS} x {LENGTH}"
    table = Table(title=f"{title}; {os.cpu_count()} cores, torch {torch.__version__}")
    for heading in results[0]:
        table.add_column(heading, justify="right")
    for row in results:
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    line = json.dumps({"cores": os.cpu_count(), "torch": torch.__version__, "results": results})
    print(line)
    if file is not None:
        file.write_text(line + "\n")


def show_means(threads: int) -> None:
    """Print the mean milliseconds of each operation in this process."""
    torch.set_num_threads(threads)
    means = {}
    for name, work in timed_functions(EMBEDDED, "float32").items():
        work()
        started, rounds = time.perf_counter(), 0
        while time.perf_counter() - started < SECONDS:
            work()
            rounds += 1
        means[name] = 1e3 * (time.perf_counter() - started) / rounds
    print(json.dumps(means))


def _means(waiting: str, threads: int) -> dict[str, float]:
    imports, variables = WAYS[waiting]
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; {SHOW.format(threads=threads)}"],
        cwd=ROOT, env={**environment, **variables}, stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


@contextmanager
def _busy(wanted: bool) -> Iterator[None]:
    """Keep one core busy with another process during the block, if ``wanted``."""
    process = subprocess.Popen([sys.executable, "-c", BUSY]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()
