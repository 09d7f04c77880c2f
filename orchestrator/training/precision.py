"""Which precision a device trains a model of some widths faster in, timed in a moment.

A processor without bfloat16 arithmetic computes in it fifty times slower than in float32; one with
AMX trains wide layers two to four times faster, and narrow ones slower, for autocast's casts of
weights, activations and gradients are as many. Knows nothing of configs or runs.
"""

import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch

from orchestrator.training.job import Precision
from orchestrator.training.speed import LENGTH, TOKENS, Shape, fastest, works

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PRODUCT = (256, 128, 384)  # rows, inner and outer width of the product that is timed first
CLEARLY = 1.5  # times that bfloat16 is faster, else float32, which is the more exact
FLOPS = 2**32  # of the step that is timed, at most: half a second on a slow core
VOCABULARY = 512  # of the step: the layers decide


@dataclass(frozen=True)
class Speeds:
    """What a step of training takes on a device.

    Attributes:
        device: its name.
        faster: the precision to train in.
        seconds: by precision; empty where nothing was timed (CUDA).
        work: what was timed.
    """

    device: str
    faster: Precision
    seconds: dict[Precision, float] = field(default_factory=dict)
    work: str = ""

    @property
    def bfloat16_is_slow(self) -> bool:
        """Whether a training in it would take clearly longer."""
        if not self.seconds:
            return self.faster != "bfloat16"
        return self.seconds["bfloat16"] > CLEARLY * self.seconds["float32"]


def device_name(kind: str) -> str:
    """The name of the device that a training on "cpu" or "cuda" computes on here.

    A processor's has the instructions that torch uses of it, which the environment may limit.
    """
    if kind == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CUDA device"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    return " ".join(filter(None, [_processor(), torch.backends.cpu.get_cpu_capability(), limit]))


@cache
def speeds(kind: str, shape: Shape, threads: int) -> Speeds:
    """Times a device, once in a process.

    Args:
        kind: "cpu"; or "cuda", where nothing is timed: a card that has bfloat16 is faster in it.
        shape: of the model.
        threads: of torch, as many as a training worker has.
    """
    name = device_name(kind)
    if kind == "cuda":
        # Where the cards are on other machines of the cluster, they are taken for recent ones.
        has_it = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        return Speeds(name, "bfloat16" if has_it else "float32")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seconds, work = _product(), "a product"
        if seconds["bfloat16"] < seconds["float32"]:
            seconds, work = _step(shape), "a layer's training step"
    finally:
        torch.set_num_threads(before)
    clear = seconds["float32"] > CLEARLY * seconds["bfloat16"]
    return Speeds(name, "bfloat16" if clear else "float32", seconds, work)


def _product() -> dict[Precision, float]:
    """Seconds of a product: where bfloat16 loses here, a step in it could take minutes."""
    rows, inner, outer = PRODUCT
    found: dict[Precision, float] = {}
    for name, dtype in DTYPES.items():
        left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, outer, dtype=dtype)
        found[name] = fastest(lambda a=left, b=right: a @ b)  # type: ignore[misc]
    return found


def _step(shape: Shape) -> dict[Precision, float]:
    """Seconds of a forward and a backward pass of one layer."""
    layer = 4 * shape.hidden_size**2 + 3 * shape.hidden_size * shape.intermediate_size
    tokens = min(max(FLOPS // (6 * layer), LENGTH), TOKENS) // LENGTH * LENGTH
    small = replace(shape, layers=1, vocabulary=VOCABULARY)
    return {name: fastest(works(small, name, tokens)["training"]) for name in DTYPES}


def _processor() -> str:
    """The processor's model, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, os.uname().machine)
