"""The rows of a training worker as a Ray Data pipeline, in the order of the training's plan.

Ray Data's own split assigns blocks to the workers in the order of their requests, which differs
between runs. Here the plan names the rows of each worker. Tasks read them one piece ahead of the
training, so that neither the driver nor a worker holds more than two pieces.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import ray.data

from orchestrator.objectives.examples import Example
from orchestrator.training.files import read_rows, to_examples

PIECES_AHEAD = 1  # pieces that are read while the training uses another one


def stream(file: Path, pieces: Sequence[Sequence[int]], task_cpus: float) -> Iterator[Example]:
    """Iterate over the rows of all pieces, in order.

    Args:
        file: Parquet file of training rows.
        pieces: row numbers; the rows of a piece are read together.
        task_cpus: logical CPUs of each reading task.
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
    """Read the rows of the pieces in a block."""
    return pa.concat_tables([read_rows(Path(file), p) for p in pieces["rows"].to_pylist()])
