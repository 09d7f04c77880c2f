"""Pairs on whose prompts the model in training is not trained, for its evaluations on the way."""

from collections.abc import Iterator
from itertools import islice

from jobs.sweep.sweep import Sweep
from orchestrator.data.tables import count_rows, stream_pairs
from orchestrator.records import PreferencePair


def held_out_pairs(sweep: Sweep, split: str) -> Iterator[PreferencePair]:
    """The first `training.evaluation_pairs` pairs of another model's ``split``.

    Where that one is empty, because its model is given, they are the test's; the embedded world has
    none of those, and no empty split either.
    """
    for name in (split, "test"):
        file = sweep.file("pairs", f"pairs_{name}.parquet")
        if file.is_file() and count_rows(file):
            return islice(stream_pairs(file), sweep.config.training.evaluation_pairs)
    return iter(())
