"""A training worker's shard: a Ray Data pipeline of its own rows, in the order of the plan.

Ray Data's own split deals blocks to whoever asks first, so that no step would have the same rows
twice. Here the plan names the rows; tasks read them a piece ahead of the training, and neither the
driver nor a worker holds more than a piece or two.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import ray.data

from orchestrator.training.examples import Example
from orchestrator.training.files import read_rows, to_examples

PIECES_AHEAD = 1  # pieces that are read while one is being trained on


def stream(file: Path, pieces: Sequence[Sequence[int]], task_cpus: float) -> Iterator[Example]:
    """The rows of all pieces (row numbers of ``file``), in order.

    ``task_cpus`` are the logical CPUs that a reading task asks for.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the training shows its own progress
    shard = ray.data.from_items(
        [{"rows": list(piece)} for piece in pieces], override_num_blocks=len(pieces)
    ).map_batches(
        _read,
        fn_args=(str(file),),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=task_cpus,
        concurrency=PIECES_AHEAD + 1,
    )
    for batch in shard.iter_batches(
        batch_size=None, batch_format="pyarrow", prefetch_batches=PIECES_AHEAD
    ):
        yield from to_examples(batch)


def _read(pieces: pa.Table, file: str) -> pa.Table:
    """The rows of a block's pieces."""
    return pa.concat_tables([read_rows(Path(file), p) for p in pieces["rows"].to_pylist()])
