"""Two ways of one thing, timed in turn, each in a process and with a memory peak of its own."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from jobs.sweep.cluster import MEMORY

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): the peak of resident memory starts again from what is resident now


@dataclass(frozen=True)
class Measured:
    """Medians in seconds; peaks in MiB over what was resident before, None where not known."""

    ours_s: float
    other_s: float
    ours_peak_mib: float | None
    other_peak_mib: float | None


Run = Callable[[], object]  # a function that a new process can import, or a partial one of such


def compare(ours: Run, other: Run, warm_up: Run, repeats: int, device: str = "cpu") -> Measured:
    """Runs each once for its peak, then both in turn, so that a slow minute slows both.

    ``warm_up`` comes first in each process: it loads what both need, so that no peak holds it. On
    the ``device`` "cuda" the peaks are those of the card's memory.
    """
    for name, value in MEMORY.items():  # as the workers of a sweep have it; read at a start
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=context) as first,
        ProcessPoolExecutor(1, mp_context=context) as second,
    ):
        for pool in (first, second):
            pool.submit(warm_up).result()
        ways = ((first, ours), (second, other))
        peaks = [pool.submit(_peak, run, device).result() for pool, run in ways]
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            times[0].append(first.submit(_seconds, ours, device).result())
            times[1].append(second.submit(_seconds, other, device).result())
    return Measured(statistics.median(times[0]), statistics.median(times[1]), *peaks)


def _seconds(run: Run, device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak(run: Run, device: str) -> float | None:
    """Rise of resident (or the card's allocated) memory in a run over the state before (MiB)."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        run()
        return float(torch.cuda.max_memory_allocated() - allocated) / 2**20
    before = begin_peak()
    run()
    return None if before is None else peak_mib() - before


def begin_peak() -> float | None:
    """Resident memory (MiB) of this process, from which its peak counts anew; None: not known."""
    try:
        before = resident_mib()
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:  # not Linux, or not allowed
        return None
    return before


def peak_mib() -> float:
    """The most that was resident since the peak began (MiB)."""
    return _status("VmHWM")


def resident_mib() -> float:
    """Resident memory of this process (MiB)."""
    return _status("VmRSS")


def _status(field: str) -> float:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return float(lines[field].split()[0]) / 1024
