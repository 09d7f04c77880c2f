"""Held-out preference pairs for the evaluations during a training."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from orchestrator.data.tables import count_rows, stream_pairs
from orchestrator.records import PreferencePair


def held_out_pairs(files: Sequence[Path], count: int) -> Iterator[PreferencePair]:
    """Return the first ``count`` pairs of the first file that exists and has rows, else none.

    The files are those of another model's split and of the test pairs, whose prompts are not in the
    training data of the model.
    """
    for file in files:
        if file.is_file() and count_rows(file):
            return islice(stream_pairs(file), count)
    return iter(())
