"""Measures whether a device trains a model faster in bfloat16 or in float32.

On a processor without bfloat16 instructions, bfloat16 is fifty times slower than float32. A
processor with AMX trains wide layers two to four times faster in bfloat16, and narrow layers
slower, because autocast casts weights, activations and gradients whatever their width.
"""

import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch

from orchestrator.training.job import Precision
from orchestrator.training.speed import LENGTH, TOKENS, Shape, fastest, timed_functions

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PRODUCT = (256, 128, 384)  # sizes of the matrix product that is timed first: (M, K) x (K, N)
CLEARLY = 1.5  # bfloat16 is chosen if it is this many times faster, because float32 is more exact
FLOPS = 2**32  # FLOPs of the timed step at most: half a second on a slow core
VOCABULARY = 512  # vocabulary of the timed step's model, small because the layers decide


@dataclass(frozen=True)
class Speeds:
    """Times of a training step on a device.

    Attributes:
        device: name of the device.
        faster: precision to train in.
        seconds: measured time by precision; empty if nothing was timed (CUDA).
        work: what was timed.
    """

    device: str
    faster: Precision
    seconds: dict[Precision, float] = field(default_factory=dict)
    work: str = ""

    @property
    def bfloat16_is_slow(self) -> bool:
        """Whether a training in bfloat16 takes clearly longer than in float32."""
        if not self.seconds:
            return self.faster != "bfloat16"
        return self.seconds["bfloat16"] > CLEARLY * self.seconds["float32"]


def device_name(kind: str) -> str:
    """Return the name of this machine's device of kind "cpu" or "cuda".

    The name of a processor includes the instruction set that torch uses, which the environment can
    limit.
    """
    if kind == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CUDA device"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    return " ".join(filter(None, [_processor(), torch.backends.cpu.get_cpu_capability(), limit]))


@cache
def speeds(kind: str, shape: Shape, threads: int) -> Speeds:
    """Time training on a device, once in a process.

    Args:
        kind: "cpu", or "cuda", where nothing is timed: a GPU that supports bfloat16 is faster in
            it.
        shape: widths of the model.
        threads: torch threads of a training worker.
    """
    name = device_name(kind)
    if kind == "cuda":
        # GPUs of other machines of the cluster are assumed to support bfloat16.
        supported = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        return Speeds(name, "bfloat16" if supported else "float32")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seconds, work = _product(), "a matrix product"
        if seconds["bfloat16"] < seconds["float32"]:
            seconds, work = _step(shape), "a training step of one layer"
    finally:
        torch.set_num_threads(before)
    clear = seconds["float32"] > CLEARLY * seconds["bfloat16"]
    return Speeds(name, "bfloat16" if clear else "float32", seconds, work)


def _product() -> dict[Precision, float]:
    """Time a matrix product; if bfloat16 is slower here, a step in it could take minutes."""
    rows, inner, outer = PRODUCT
    seconds: dict[Precision, float] = {}
    for name, dtype in DTYPES.items():
        left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, outer, dtype=dtype)
        seconds[name] = fastest(lambda a=left, b=right: a @ b)  # type: ignore[misc]
    return seconds


def _step(shape: Shape) -> dict[Precision, float]:
    """Time a forward and a backward pass of one layer."""
    layer = 4 * shape.hidden_size**2 + 3 * shape.hidden_size * shape.intermediate_size
    tokens = min(max(FLOPS // (6 * layer), LENGTH), TOKENS) // LENGTH * LENGTH
    small = replace(shape, layers=1, vocabulary=VOCABULARY)
    return {name: fastest(timed_functions(small, name, tokens)["training"]) for name in DTYPES}


def _processor() -> str:
    """Return the model of the processor, or its architecture if the model is not stated."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, os.uname().machine)
