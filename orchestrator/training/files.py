"""Training rows on disk: token ids in Parquet, in the order that a training's plan refers to."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.training.examples import Example, PairExample, TextExample

_IDS = pa.list_(pa.int32())
_TEXT = pa.schema([("prompt_ids", _IDS), ("response_ids", _IDS)])
_PAIR = pa.schema(
    [
        ("prompt_ids", _IDS),
        ("chosen_ids", _IDS),
        ("rejected_ids", _IDS),
        ("chosen_cuts", _IDS),
        ("rejected_cuts", _IDS),
        ("weights", pa.list_(pa.float64())),
    ]
)


def write_examples(file: Path, examples: Sequence[Example]) -> None:
    """Writes rows of one kind, in order.

    Raises:
        ValueError: there are no rows; a training without rows is an error of what made them.
    """
    if not examples:
        raise ValueError(f"{file.name}: no training rows")
    schema = _TEXT if isinstance(examples[0], TextExample) else _PAIR
    columns = {name: [getattr(row, name) for row in examples] for name in schema.names}
    pq.write_table(pa.table(columns, schema=schema), file)


def read_examples(file: Path) -> list[Example]:
    """Reads the rows in their order; the columns tell their kind."""
    table = pq.read_table(file)
    kind = PairExample if "weights" in table.column_names else TextExample
    return [kind(**{k: tuple(v) for k, v in row.items()}) for row in table.to_pylist()]
