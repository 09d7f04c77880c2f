"""Keyed draws inside vLLM: a logits processor that leaves the drawn token alone.

vLLM's own seeds depend on the batch, and on a CPU version 0.32 fails with one where a prompt is
computed in pieces. Here each sample draws from its own stream of uniform numbers, as in the Hugging
Face engine: both draw the same tokens from the same logits. Imported in the engine's process only.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from orchestrator.engines.draws import border_distance, distribution, inverse
from orchestrator.randomness import uniforms


@dataclass
class _Stream:
    """A sample's draws; the one for its next token is at the number of its tokens so far."""

    key: int
    draws: np.ndarray
    tokens: list[int]  # vLLM's own list, which grows


def _drawn(
    logits: Tensor, draws: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """The tokens (R,) that uniform numbers (R,) draw from logits (R, V), and their margins (R,)."""
    found, cut = distribution(logits, temperature, top_p)
    cumulative = found.double().cumsum(-1)
    tokens = inverse(cumulative, draws, None).clamp(max=logits.shape[-1] - 1)
    near = border_distance(cumulative, draws, tokens, None)
    return tokens, near if cut is None else torch.minimum(near, cut.double())


def _follow(streams: dict[int, _Stream], update: BatchUpdate) -> None:
    """Follows the requests through the rows of vLLM's batch."""
    for row in update.removed:
        streams.pop(row, None)
    for row, parameters, _, tokens in update.added:
        streams.pop(row, None)
        given = parameters.extra_args or {}
        if "key" in given:
            draws = uniforms(given["key"], given["count"])[given["start"] :]
            streams[row] = _Stream(given["key"], draws, tokens)
    for source, target, direction in update.moved:
        moved, met = streams.pop(source, None), streams.pop(target, None)
        if moved is not None:
            streams[target] = moved
        if met is not None and direction == MoveDirectionality.SWAP:
            streams[source] = met


def keyed_draws(temperature: float, top_p: float) -> Any:
    """The class of a logits processor that draws after temperature and top-p.

    A request has its ``key`` among its ``extra_args``, with ``start``, the number of tokens that
    were drawn before, and ``count``, that of all its draws; one without is left as it is. vLLM is
    to take the likeliest token. ``broken`` of the class tells whether some logits were NaN,
    ``margins`` how near the nearest draw of a key was, as of ``Continuation``.
    """

    class KeyedDraws(LogitsProcessor):  # type: ignore[misc]
        """Sets all logits of a sample's row but that of the token it draws to minus infinity."""

        broken: Tensor | bool = False
        margins: ClassVar[dict[int, float]] = {}

        def __init__(self, config: Any, device: torch.device, is_pin_memory: bool) -> None:
            self._streams: dict[int, _Stream] = {}

        def is_argmax_invariant(self) -> bool:
            """No: it decides which token is the likeliest."""
            return False

        def update_state(self, update: BatchUpdate | None) -> None:
            """Follows the requests through the rows of vLLM's batch."""
            if update is not None:
                _follow(self._streams, update)

        def apply(self, logits: Tensor) -> Tensor:
            """Draws for all rows (R, V) that have a stream."""
            KeyedDraws.broken |= logits.isnan().any()
            if not self._streams:
                return logits
            rows = torch.tensor(list(self._streams), device=logits.device)
            draws = torch.tensor(
                [own.draws[len(own.tokens)] for own in self._streams.values()],
                dtype=torch.float64, device=logits.device,
            )  # fmt: skip
            tokens, near = _drawn(logits[rows].float(), draws, temperature, top_p)
            logits[rows] = -torch.inf
            logits[rows, tokens] = 0.0
            margins = KeyedDraws.margins
            for own, margin in zip(self._streams.values(), near.tolist(), strict=True):
                margins[own.key] = min(margins.get(own.key, math.inf), margin)
            return logits

    return KeyedDraws
