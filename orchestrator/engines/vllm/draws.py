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

from orchestrator.engines.huggingface.draws import Intervals, distribution
from orchestrator.randomness import uniforms


@dataclass
class _Stream:
    """A sample's draws; the one for its next token is at the number of its tokens so far.

    None of a sample that takes the likeliest token.
    """

    number: int
    draws: np.ndarray | None
    tokens: list[int]  # vLLM's own list, which grows


def _drawn(
    logits: Tensor, draws: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """The tokens (R,) that uniform numbers (R,) draw from logits (R, V), and their margins (R,).

    A row with NaN among its logits has NaN for a margin, and any token.
    """
    found, cut = distribution(logits, temperature, top_p)
    intervals = Intervals(found)
    broken = intervals.total.isnan()
    if broken.any():
        intervals = Intervals(torch.where(broken[:, None], 1.0, found))
    tokens, near = intervals.drawn(draws)
    near = near if cut is None else torch.minimum(near, cut.double())
    return tokens, near.masked_fill(broken, math.nan)


def _follow(streams: dict[int, _Stream], update: BatchUpdate) -> None:
    """Follows the requests through the rows of vLLM's batch."""
    for row in update.removed:
        streams.pop(row, None)
    for row, parameters, _, tokens in update.added:
        streams.pop(row, None)
        given = parameters.extra_args or {}
        if "number" in given:
            draws = None
            if given["key"] is not None:
                draws = uniforms(given["key"], given["count"])[given["start"] :]
            streams[row] = _Stream(given["number"], draws, tokens)
    for source, target, direction in update.moved:
        moved, met = streams.pop(source, None), streams.pop(target, None)
        if moved is not None:
            streams[target] = moved
        if met is not None and direction == MoveDirectionality.SWAP:
            streams[source] = met


def keyed_draws(temperature: float, top_p: float) -> Any:
    """The class of a logits processor that draws after temperature and top-p.

    A request has among its ``extra_args`` its ``number``, ``key``, ``start`` (how many tokens were
    drawn before) and ``count`` (of all its draws); one whose key is None is left as it is. vLLM is
    to take the likeliest token. ``broken`` of the class holds the numbers of requests of which some
    logits were NaN, ``margins`` how near the nearest draw of each was, as of
    ``Continuation``.
    """

    class KeyedDraws(LogitsProcessor):  # type: ignore[misc]
        """Sets all logits of a sample's row but that of the token it draws to minus infinity."""

        broken: ClassVar[set[int]] = set()
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
            drawn, numbers = {}, {}
            for row, own in self._streams.items():
                if own.draws is not None:
                    drawn[row], numbers[row] = own, own.draws[len(own.tokens)]
                elif logits[row].isnan().any():
                    KeyedDraws.broken.add(own.number)
            if not drawn:
                return logits
            rows = torch.tensor(list(drawn), device=logits.device)
            draws = torch.tensor(list(numbers.values()), dtype=torch.float64, device=logits.device)
            tokens, near = _drawn(logits[rows].float(), draws, temperature, top_p)
            logits[rows] = -torch.inf
            logits[rows, tokens] = 0.0
            margins = KeyedDraws.margins
            for own, margin in zip(drawn.values(), near.tolist(), strict=True):
                margins[own.number] = min(margins.get(own.number, math.inf), margin)
                if math.isnan(margin):
                    KeyedDraws.broken.add(own.number)
            return logits

    return KeyedDraws
