"""The plan of a training: the rows of each optimizer step, and the share of each worker.

It depends only on the sizes of the rows and the seed. Every worker makes the same plan and takes
its share. A resumed training continues with the same steps, and each worker reads only its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.randomness import Key, generator

GROUP = 1_024  # rows of a row group, which are read together
WINDOW = 16  # groups whose rows are shuffled together: a reader holds at most this many


def shuffled(rows: int, *key: Key) -> list[int]:
    """Return all row numbers in the random order of one epoch; ``key`` seeds it.

    The groups of the file are shuffled, then the rows within each WINDOW of groups. So a reader
    reads the file once, with one window in memory.
    """
    draw = generator(*key)
    groups = draw.permutation(-(-rows // GROUP))
    order: list[int] = []
    for start in range(0, len(groups), WINDOW):
        spans = ((g * GROUP, min((g + 1) * GROUP, rows)) for g in groups[start : start + WINDOW])
        window = np.concatenate([np.arange(*span) for span in spans])
        order += draw.permutation(window).tolist()
    return order


def steps_of_epochs(
    sizes: Sequence[int], batch_size: int, epochs: int, seed: int
) -> list[list[int]]:
    """Return the row numbers of each optimizer step.

    Rows are added to a step until their sizes sum up to ``batch_size`` or more; rows of size 0 are
    skipped. The last step of an epoch may be smaller.

    Args:
        sizes: what each row counts in a batch.
        batch_size: sum of the sizes of a step.
        epochs: passes over all rows.
        seed: seed of the order.
    """
    steps: list[list[int]] = []
    for epoch in range(epochs):
        step: list[int] = []
        size = 0
        for row in shuffled(len(sizes), seed, "epoch", epoch):
            if sizes[row] == 0:
                continue
            step.append(row)
            size += sizes[row]
            if size >= batch_size:
                steps.append(step)
                step, size = [], 0
        if step:
            steps.append(step)
    return steps


def steps_of_count(sizes: Sequence[int], batch_size: int, count: int, seed: int) -> list[list[int]]:
    """Return the row numbers of exactly ``count`` steps, from as many epochs as needed."""
    if not any(sizes):
        return []
    epochs = 1
    # The number of steps of an epoch depends on the order of rows of different sizes.
    while len(steps := steps_of_epochs(sizes, batch_size, epochs, seed)) < count:
        epochs *= 2
    return steps[:count]


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward and backward pass of one worker.

    Attributes:
        rows: row numbers.
        counts: False if the pass only keeps the worker in step with the others, because under ZeRO
            all workers must make the same number of passes; its loss is multiplied by 0.
    """

    rows: tuple[int, ...]
    counts: bool = True


def shares(
    step: Sequence[int], tokens: Sequence[int], workers: int, most_tokens: int | None
) -> list[list[MicroBatch]]:
    """Return the micro-batches of each worker for one step, the same number for all workers.

    Rows are assigned to the workers in turn, in the order of their tokens, so that rows of similar
    length share a batch.

    Args:
        step: row numbers of the step.
        tokens: tokens of each row of the file.
        workers: number of workers.
        most_tokens: padded tokens of a micro-batch at most, unless it has one row only; None puts
            all rows of a worker into one micro-batch.
    """
    ordered = sorted(step, key=lambda row: (tokens[row], row))
    batches = [
        _micro_batches(ordered[worker::workers], tokens, most_tokens) for worker in range(workers)
    ]
    passes = max(map(len, batches))
    idle = MicroBatch((ordered[0],), counts=False)
    return [of_worker + [idle] * (passes - len(of_worker)) for of_worker in batches]


def _micro_batches(
    rows: Sequence[int], tokens: Sequence[int], most_tokens: int | None
) -> list[MicroBatch]:
    if most_tokens is None:
        return [MicroBatch(tuple(rows))] if rows else []
    batches: list[MicroBatch] = []
    batch: tuple[int, ...] = ()
    for row in rows:  # in ascending order: the last row of a batch is its longest
        if batch and tokens[row] * (len(batch) + 1) > most_tokens:
            batches.append(MicroBatch(batch))
            batch = ()
        batch += (row,)
    return [*batches, MicroBatch(batch)] if batch else batches
