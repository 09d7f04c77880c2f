"""Training rows of Bradley-Terry: whole pairs (Eq. 1) and weighted partial pairs (Eq. 2, Eq. 3)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow.parquet as pq

from orchestrator.conversations.chat import Chat
from orchestrator.objectives.examples import PairExample
from orchestrator.records import PreferencePair
from orchestrator.rewards.weights import Floats, Kind, normalized, weights_of

ROWS_AT_ONCE = 512


class _PartialRow(TypedDict):
    """A row of partial pairs; the lists of cuts, scores and weights are aligned."""

    truncation: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_cuts: list[int]
    rejected_cuts: list[int]
    reference_chosen: list[float]
    reference_rejected: list[float]
    weights: list[float]


def whole_pair(pair: PreferencePair, chat: Chat, grid: Sequence[int] = ()) -> PairExample:
    """Return a row of Eq. 1: one cut at the whole length, of weight 1.

    Held-out rows have the cuts of a ``grid`` of lengths before it.
    """
    prompt, chosen, rejected = chat.pair(pair.prompt.messages, pair.chosen, pair.rejected)
    cuts = (*grid, max(len(chosen), len(rejected)))
    return PairExample(prompt, chosen, rejected, cuts, cuts, (1.0,) * len(cuts))


def partial_pairs(
    file: Path, truncation: str, kind: Kind, maximum: float | None, normalize: bool, seed: int
) -> Iterator[PairExample]:
    """Yield the rows of one truncation with their weights; partial pairs of weight 0 are left out.

    Args:
        file: Parquet file of partial pairs.
        truncation: "sst" or "tlt".
        kind: kind of the weights.
        maximum: the largest weight; None: uncapped.
        normalize: whether the kept weights are scaled to mean 1.
        seed: decides the draw of shuffled weights.
    """
    rows = pq.ParquetFile(file)
    weights = _weights(rows, truncation, kind, maximum, normalize, seed)
    start = 0
    for row in _rows(rows, truncation):
        values = weights[start : start + len(row["weights"])]
        start += len(values)
        kept = [i for i, w in enumerate(values) if w > 0]
        if kept:
            yield PairExample(
                tuple(row["prompt_ids"]),
                tuple(row["chosen_ids"]),
                tuple(row["rejected_ids"]),
                tuple(row["chosen_cuts"][i] for i in kept),
                tuple(row["rejected_cuts"][i] for i in kept),
                tuple(float(values[i]) for i in kept),
            )


def first_partial_pairs(rows: Iterable[PairExample], count: int) -> Iterator[PairExample]:
    """Yield the first rows up to ``count`` partial pairs; the last row is truncated to fit."""
    for row in rows:
        if count <= 0:
            return
        yield replace(
            row,
            chosen_cuts=row.chosen_cuts[:count],
            rejected_cuts=row.rejected_cuts[:count],
            weights=row.weights[:count],
        )
        count -= row.size


def _weights(
    file: pq.ParquetFile,
    truncation: str,
    kind: Kind,
    maximum: float | None,
    normalize: bool,
    seed: int,
) -> Floats:
    """The weights of all partial pairs of a truncation (N,): some kinds need all gaps at once."""
    gaps = [
        np.subtract(row["reference_chosen"], row["reference_rejected"])
        for row in _rows(file, truncation, ["reference_chosen", "reference_rejected"])
    ]
    together = np.concatenate([np.zeros(0), *gaps])
    weights = weights_of(kind, together, maximum, seed, truncation)
    return normalized(weights) if normalize else weights


def _rows(
    file: pq.ParquetFile, truncation: str, columns: Sequence[str] | None = None
) -> Iterator[_PartialRow]:
    """The rows of a truncation, with some of their columns or all."""
    named = None if columns is None else ["truncation", *columns]
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=named):
        yield from (row for row in batch.to_pylist() if row["truncation"] == truncation)
