"""Keyed draws inside vLLM: a logits processor that draws each sample's next token.

vLLM's own seeds depend on the batch, and on a CPU version 0.32 fails with a seed where a prompt is
prefilled in chunks. Here each sample draws from its own stream of uniform numbers, as in the
Hugging Face engine: both draw the same tokens from the same logits. Only the engine's process
imports this module.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from orchestrator.engines.huggingface.draws import TokenIntervals, distribution
from orchestrator.randomness import uniforms


@dataclass
class _Stream:
    """A sample's uniform numbers; None for a greedy sample.

    The number of the next token is at the index ``len(tokens)``.
    """

    sample_id: int
    draws: np.ndarray | None
    tokens: list[int]  # vLLM's own list, which grows


def _draw(logits: Tensor, draws: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Return the tokens (R,) that uniform numbers (R,) draw from logits (R, V), and their margins.

    A row with NaN logits has the margin NaN and an arbitrary token.
    """
    probabilities, cut = distribution(logits, temperature, top_p)
    intervals = TokenIntervals(probabilities)
    is_nan = intervals.total.isnan()
    if is_nan.any():
        intervals = TokenIntervals(torch.where(is_nan[:, None], 1.0, probabilities))
    tokens, margins = intervals.draw(draws)
    margins = margins if cut is None else torch.minimum(margins, cut.double())
    return tokens, margins.masked_fill(is_nan, math.nan)


def _update_rows(streams: dict[int, _Stream], update: BatchUpdate) -> None:
    """Apply an update of vLLM's batch to the streams by row."""
    for row in update.removed:
        streams.pop(row, None)
    for row, parameters, _, tokens in update.added:
        streams.pop(row, None)
        extra_args = parameters.extra_args or {}
        if "sample_id" in extra_args:
            draws = None
            if extra_args["key"] is not None:
                draws = uniforms(extra_args["key"], extra_args["count"])[extra_args["start"] :]
            streams[row] = _Stream(extra_args["sample_id"], draws, tokens)
    for source, target, direction in update.moved:
        moved, replaced = streams.pop(source, None), streams.pop(target, None)
        if moved is not None:
            streams[target] = moved
        if replaced is not None and direction == MoveDirectionality.SWAP:
            streams[source] = replaced


def keyed_draws(temperature: float, top_p: float) -> Any:
    """Return a logits processor class that draws after temperature and top-p.

    A request's ``extra_args`` hold ``sample_id``, ``key`` (None leaves its logits unchanged),
    ``start`` (tokens drawn before) and ``count`` (of all its draws). vLLM must sample greedily.
    The class attribute ``nan_sample_ids`` holds the ids of samples with NaN logits, ``margins`` the
    smallest margin of each sample's draws, as in ``Continuation``.
    """

    class KeyedDraws(LogitsProcessor):  # type: ignore[misc]
        """Sets all logits of a sample's row to minus infinity, except that of the drawn token."""

        nan_sample_ids: ClassVar[set[int]] = set()
        margins: ClassVar[dict[int, float]] = {}

        def __init__(self, config: Any, device: torch.device, is_pin_memory: bool) -> None:
            self._streams: dict[int, _Stream] = {}

        def is_argmax_invariant(self) -> bool:
            """Return False: the drawn token becomes the argmax."""
            return False

        def update_state(self, update: BatchUpdate | None) -> None:
            """Apply an update of vLLM's batch."""
            if update is not None:
                _update_rows(self._streams, update)

        def apply(self, logits: Tensor) -> Tensor:
            """Draw a token for every row of (R, V) that has a stream."""
            drawing, numbers = {}, {}
            for row, stream in self._streams.items():
                if stream.draws is not None:
                    drawing[row], numbers[row] = stream, stream.draws[len(stream.tokens)]
                elif logits[row].isnan().any():
                    KeyedDraws.nan_sample_ids.add(stream.sample_id)
            if not drawing:
                return logits
            rows = torch.tensor(list(drawing), device=logits.device)
            draws = torch.tensor(list(numbers.values()), dtype=torch.float64, device=logits.device)
            tokens, row_margins = _draw(logits[rows].float(), draws, temperature, top_p)
            logits[rows] = -torch.inf
            logits[rows, tokens] = 0.0
            margins = KeyedDraws.margins
            for stream, margin in zip(drawing.values(), row_margins.tolist(), strict=True):
                margins[stream.sample_id] = min(margins.get(stream.sample_id, math.inf), margin)
                if math.isnan(margin):
                    KeyedDraws.nan_sample_ids.add(stream.sample_id)
            return logits

    return KeyedDraws
