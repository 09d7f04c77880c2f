"""The plan of a training: which rows make up each optimizer step, and who computes which of them.

The rows' sizes and the seed alone decide it. Every worker makes the same plan and takes its share,
so the global counts that normalise the loss are known without asking, a training that starts again
goes on with the same steps, and no row is read that is not wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.randomness import Key, generator

GROUP = 1_024  # rows of a file that are read together
WINDOW = 16  # groups whose rows are shuffled among each other: a reader holds so many at most


def shuffled(rows: int, *key: Key) -> list[int]:
    """All row numbers in the order of one epoch, keyed.

    The groups of the file are shuffled, then the rows of each WINDOW of groups among each other, so
    that a reader goes through the file once and holds one window.
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
    """Row numbers of each optimizer step.

    A step takes rows until it holds at least ``batch_size`` partial pairs (whole rows: a pair is
    packed in one forward); rows of size 0 are left out. The last step of an epoch may be smaller.
    """
    steps: list[list[int]] = []
    for epoch in range(epochs):
        step: list[int] = []
        held = 0
        for row in shuffled(len(sizes), seed, "epoch", epoch):
            if sizes[row] == 0:
                continue
            step.append(row)
            held += sizes[row]
            if held >= batch_size:
                steps.append(step)
                step, held = [], 0
        if step:
            steps.append(step)
    return steps


def steps_of_count(sizes: Sequence[int], batch_size: int, count: int, seed: int) -> list[list[int]]:
    """As above, with as many epochs as give exactly ``count`` steps."""
    if not any(sizes):
        return []
    epochs = 1
    # Epochs differ in steps: how rows of different sizes fill them depends on the shuffle.
    while len(found := steps_of_epochs(sizes, batch_size, epochs, seed)) < count:
        epochs *= 2
    return found[:count]


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward and backward pass of one worker.

    ``counts`` is False for one that only keeps the worker in step with the others: under ZeRO every
    pass is a collective one.
    """

    rows: tuple[int, ...]
    counts: bool = True


def shares(
    step: Sequence[int], tokens: Sequence[int], workers: int, most_tokens: int | None
) -> list[list[MicroBatch]]:
    """The micro-batches of each worker for one step: as many for one worker as for another.

    Rows of similar length go together: they are dealt to the workers in the order of their
    ``tokens``, and a worker's are cut into batches of at most ``most_tokens`` padded tokens (or of
    one row; None: all at once).
    """
    ordered = sorted(step, key=lambda row: (tokens[row], row))
    found = [
        _micro_batches(ordered[worker::workers], tokens, most_tokens) for worker in range(workers)
    ]
    passes = max(map(len, found))
    idle = MicroBatch((ordered[0],), counts=False)
    return [own + [idle] * (passes - len(own)) for own in found]


def _micro_batches(
    rows: Sequence[int], tokens: Sequence[int], most_tokens: int | None
) -> list[MicroBatch]:
    if most_tokens is None:
        return [MicroBatch(tuple(rows))] if rows else []
    batches: list[MicroBatch] = []
    batch: tuple[int, ...] = ()
    for row in rows:  # by rising length: the last is the longest
        if batch and tokens[row] * (len(batch) + 1) > most_tokens:
            batches.append(MicroBatch(batch))
            batch = ()
        batch += (row,)
    return [*batches, MicroBatch(batch)] if batch else batches
