"""Training rows as token ids, and which rows make up each optimizer step.

The plan of a training is decided by the rows and the seed alone: every worker computes the same
one and takes its share, so the global counts that normalise the loss are known without asking.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.randomness import generator


@dataclass(frozen=True)
class TextExample:
    """A row of supervised fine-tuning: the loss is over ``response_ids``, closing included."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]

    @property
    def size(self) -> int:
        """What a row counts for in a batch."""
        return 1


@dataclass(frozen=True)
class PairExample:
    """A preference pair with its partial pairs: where each response is cut (tokens), a weight w.

    The two cuts of a partial pair are the same t, but for the official preset, which counts words.
    An ORM's row has one cut at the whole length, weight 1 (Eq. 1).
    """

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_cuts: tuple[int, ...]
    rejected_cuts: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def size(self) -> int:
        """Partial pairs of the row: what it counts for in a batch."""
        return len(self.weights)


Example = TextExample | PairExample


def plan(sizes: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Row numbers of each optimizer step.

    Each epoch is a keyed shuffle of all rows. A step takes rows until it holds at least
    ``batch_size`` partial pairs (whole rows: a pair is packed in one forward); rows of size 0 are
    left out. The last step of an epoch may be smaller.
    """
    steps: list[list[int]] = []
    for epoch in range(epochs):
        step: list[int] = []
        held = 0
        for row in generator(seed, "epoch", epoch).permutation(len(sizes)).tolist():
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


def plan_for_steps(sizes: Sequence[int], batch_size: int, steps: int, seed: int) -> list[list[int]]:
    """As ``plan``, with as many epochs as give exactly ``steps`` steps (the control's way)."""
    if not any(sizes):
        return []
    epochs = 1
    # Epochs differ in steps: how rows of different sizes fill them depends on the shuffle.
    while len(found := plan(sizes, batch_size, epochs, seed)) < steps:
        epochs *= 2
    return found[:steps]
