"""Time two implementations alternately, each in a separate process, and measure memory peaks."""

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
_RESET_PEAK = "5"  # proc(5): reset the peak of resident memory to the current value


@dataclass(frozen=True)
class Measured:
    """Medians in seconds; peaks in MiB above the memory before the run, None if unknown."""

    ours_s: float
    other_s: float
    ours_peak_mib: float | None
    other_peak_mib: float | None


Run = Callable[[], object]  # can be pickled: an importable function, or a partial of one


def compare(ours: Run, other: Run, warm_up: Run, repeats: int, device: str = "cpu") -> Measured:
    """Return medians and peaks of two implementations, which run alternately.

    Each runs once for its peak. The timed runs then alternate, so that other load slows both.


    Args:
        ours: this project's implementation.
        other: the implementation that it is compared with.
        warm_up: runs first in each process and loads what both need, so that peaks exclude it.
        repeats: timed runs of each.
        device: "cpu", or "cuda": peaks are those of GPU memory.
    """
    for name, value in MEMORY.items():  # as in the workers of a sweep; read when a process starts
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=context) as first,
        ProcessPoolExecutor(1, mp_context=context) as second,
    ):
        for pool in (first, second):
            pool.submit(warm_up).result()
        both = ((first, ours), (second, other))
        peaks = [pool.submit(_peak, run, device).result() for pool, run in both]
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
    """Return how far a run raises resident (or allocated GPU) memory (MiB); None if unknown."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        run()
        return float(torch.cuda.max_memory_allocated() - allocated) / 2**20
    before = begin_peak()
    run()
    return None if before is None else peak_mib() - before


def begin_peak() -> float | None:
    """Reset the peak of this process; return its resident memory (MiB), None if unknown."""
    try:
        before = resident_mib()
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:  # not Linux, or no permission
        return None
    return before


def peak_mib() -> float:
    """Return the peak of resident memory since ``begin_peak`` (MiB)."""
    return _status("VmHWM")


def resident_mib() -> float:
    """Return the resident memory of this process (MiB)."""
    return _status("VmRSS")


def _status(field: str) -> float:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return float(lines[field].split()[0]) / 1024
