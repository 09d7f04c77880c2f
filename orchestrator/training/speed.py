"""Measures how fast this machine trains and runs a model of given widths.

Models of one and of a few layers, with random weights, are timed. The time of the full model is
extrapolated from the difference.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from orchestrator.training.job import Precision

TOKENS = 512  # tokens of a timed pass, in rows of LENGTH tokens
LENGTH = 64
ROWS = 32  # responses that are sampled together
MOST_LAYERS = 4  # layers of the larger model that is timed
SECONDS, ROUNDS = 0.3, 10  # limits of each timing; the fastest round counts


@dataclass(frozen=True)
class Shape:
    """The widths of a Llama model."""

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    key_value_heads: int

    @property
    def config(self) -> LlamaConfig:
        """The transformers config of the model."""
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.key_value_heads,
            head_dim=max(self.hidden_size // self.heads // 2 * 2, 2),  # even for rotary positions
            tie_word_embeddings=True, attn_implementation="sdpa",
        )  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """Seconds that a model takes on this machine.

    Attributes:
        training: forward and backward pass over TOKENS tokens, with the threads of a worker.
        forward: forward pass of the backbone (no LM head) over TOKENS tokens, with one thread.
        step: next token of ROWS responses, with one thread.
    """

    training: float
    forward: float
    step: float


def measure(shape: Shape, precision: Precision, threads: int) -> Speed:
    """Time a model on the processor; ``threads`` are the torch threads of a training worker."""
    most = min(MOST_LAYERS, shape.layers)
    one, several = (_timed(replace(shape, layers=count), precision, threads) for count in (1, most))
    more = (shape.layers - 1) / max(most - 1, 1)
    return Speed(*(a + more * max(b - a, 0.0) for a, b in zip(one, several, strict=True)))


def timed_functions(
    shape: Shape, precision: Precision, tokens: int = TOKENS
) -> dict[str, Callable[[], None]]:
    """Return the functions to time, by their name in Speed, with a model of random weights."""
    model = LlamaForCausalLM(shape.config)
    ids = torch.ones(tokens // LENGTH, LENGTH, dtype=torch.long)
    next_ids = torch.ones(ROWS, 1, dtype=torch.long)
    with torch.no_grad():
        cache = model(input_ids=ids[:1].expand(ROWS, LENGTH), use_cache=True).past_key_values

    def training() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        model.zero_grad()

    @torch.no_grad()
    def forward() -> None:
        model.model(input_ids=ids, use_cache=False)

    @torch.no_grad()
    def step() -> None:
        model(input_ids=next_ids, past_key_values=cache, use_cache=True)
        cache.crop(LENGTH)

    return {"training": training, "forward": forward, "step": step}


def fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest round, which other work on the machine disturbed least."""
    work()  # the first round loads libraries
    best, started = float("inf"), time.perf_counter()
    for _ in range(ROUNDS):
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
        if time.perf_counter() - started > SECONDS:
            break
    return best


def _timed(shape: Shape, precision: Precision, threads: int) -> list[float]:
    """Return the seconds of each field of Speed."""
    before, seconds = torch.get_num_threads(), []
    try:
        for name, work in timed_functions(shape, precision).items():
            torch.set_num_threads(threads if name == "training" else 1)
            seconds.append(fastest(work))
    finally:
        torch.set_num_threads(before)
    return seconds
