"""How fast this machine computes with a model of some widths: a moment's measurement.

Models of one and of a few layers, with random weights, are timed at what the stages of a run do;
the rest of the layers follow from the difference.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from orchestrator.training.job import Precision

TOKENS = 512  # of a pass over whole texts, in rows of LENGTH
LENGTH = 64
ROWS = 32  # texts that are sampled at once
MOST_LAYERS = 4  # that are timed
SECONDS, ROUNDS = 0.3, 10  # of each timing: until so long, or so often; the fastest round counts


@dataclass(frozen=True)
class Shape:
    """The widths of a Llama."""

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    key_value_heads: int

    @property
    def config(self) -> LlamaConfig:
        """Of a model."""
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.key_value_heads,
            head_dim=max(self.hidden_size // self.heads // 2 * 2, 2),  # even, as positions need it
            tie_word_embeddings=True, attn_implementation="sdpa",
        )  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """Seconds that a model takes on this machine.

    Attributes:
        training: of a forward and a backward pass over TOKENS tokens, with a worker's threads.
        reading: of a forward pass over as many, with one thread.
        step: of the next token of ROWS texts, with one thread.
    """

    training: float
    reading: float
    step: float


def measure(shape: Shape, precision: Precision, threads: int) -> Speed:
    """Times this machine's processor; ``threads`` are those of a training worker."""
    most = min(MOST_LAYERS, shape.layers)
    one, several = (_timed(replace(shape, layers=count), precision, threads) for count in (1, most))
    more = (shape.layers - 1) / max(most - 1, 1)
    return Speed(*(a + more * max(b - a, 0.0) for a, b in zip(one, several, strict=True)))


def works(
    shape: Shape, precision: Precision, tokens: int = TOKENS
) -> dict[str, Callable[[], None]]:
    """What is timed, by the name that it has in Speed, with a model of random weights."""
    model = LlamaForCausalLM(shape.config)
    texts = torch.ones(tokens // LENGTH, LENGTH, dtype=torch.long)
    following = torch.ones(ROWS, 1, dtype=torch.long)
    with torch.no_grad():
        read = model(input_ids=texts[:1].expand(ROWS, LENGTH), use_cache=True).past_key_values

    def training() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(input_ids=texts, labels=texts).loss
        loss.backward()
        model.zero_grad()

    @torch.no_grad()
    def reading() -> None:
        model.model(input_ids=texts, use_cache=False)

    @torch.no_grad()
    def step() -> None:
        model(input_ids=following, past_key_values=read, use_cache=True)
        read.crop(LENGTH)

    return {"training": training, "reading": reading, "step": step}


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds: other work on the machine only makes some slower."""
    work()  # loads what computes it
    best, started = float("inf"), time.perf_counter()
    for _ in range(ROUNDS):
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
        if time.perf_counter() - started > SECONDS:
            break
    return best


def _timed(shape: Shape, precision: Precision, threads: int) -> list[float]:
    before, found = torch.get_num_threads(), []
    try:
        for name, work in works(shape, precision).items():
            torch.set_num_threads(threads if name == "training" else 1)
            found.append(fastest(work))
    finally:
        torch.set_num_threads(before)
    return found
