"""Training rows on disk: token ids in Parquet; the plan of a training refers to row numbers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.objectives.examples import Example, ImplicitExample, PairExample, TextExample
from orchestrator.training.plan import GROUP

_IDS = pa.list_(pa.int32())
_COUNTS = [("size", pa.int32()), ("tokens", pa.int32())]
SCHEMAS: dict[type[Example], pa.Schema] = {
    TextExample: pa.schema([("prompt_ids", _IDS), ("response_ids", _IDS), *_COUNTS]),
    PairExample: pa.schema(
        [
            ("prompt_ids", _IDS),
            ("chosen_ids", _IDS),
            ("rejected_ids", _IDS),
            ("chosen_cuts", _IDS),
            ("rejected_cuts", _IDS),
            ("weights", pa.list_(pa.float64())),
            *_COUNTS,
        ]
    ),
    ImplicitExample: pa.schema(
        [
            ("prompt_ids", _IDS),
            ("responses", pa.list_(_IDS)),
            ("labels", pa.list_(pa.bool_())),
            ("reference_log_probs", pa.list_(pa.float64())),
            ("unrelated_ids", _IDS),
            ("unrelated_reference_log_prob", pa.float64()),
            *_COUNTS,
        ]
    ),
}


class ExampleWriter:
    """Writes rows of one kind to a Parquet file, in row groups of GROUP rows; use it in a `with`.

    Args:
        file: the Parquet file.

    Raises:
        ValueError: at the end of the `with`, if no row was added.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._buffer, self.rows = file, list[Example](), 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        if kind is None and not self.rows:
            raise ValueError(f"{self._file.name}: no training rows")

    def add(self, row: Example) -> None:
        """Add a row."""
        self._buffer.append(row)
        self.rows += 1
        if len(self._buffer) == GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._buffer:
            return
        schema = SCHEMAS[type(self._buffer[0])]
        columns = {name: [getattr(row, name) for row in self._buffer] for name in schema.names}
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, schema)
        self._writer.write_table(pa.table(columns, schema=schema), row_group_size=GROUP)
        self._buffer = []


def write_examples(file: Path, examples: Iterable[Example]) -> int:
    """Write rows of one kind to a Parquet file, in order, and return their number.

    Raises:
        ValueError: there are no rows.
    """
    with ExampleWriter(file) as writer:
        for row in examples:
            writer.add(row)
    return writer.rows


def sizes_and_tokens(file: Path) -> tuple[list[int], list[int]]:
    """Return what each row counts in a batch, and its tokens: what the plan of a training needs."""
    table = pq.read_table(file, columns=["size", "tokens"])
    return table["size"].to_pylist(), table["tokens"].to_pylist()


def read_rows(file: Path, rows: Sequence[int]) -> pa.Table:
    """Read rows by number, in the order of ``rows``; only their row groups are read."""
    numbers = np.asarray(rows, dtype=np.int64)
    groups = np.unique(numbers // GROUP)
    table = pq.ParquetFile(file).read_row_groups(groups.tolist())
    # All groups before a row's group are full, so that one begins at a multiple of GROUP.
    indices = np.searchsorted(groups, numbers // GROUP) * GROUP + numbers % GROUP
    return table.take(pa.array(indices))


def to_examples(table: pa.Table) -> list[Example]:
    """Convert a table to training rows, whose kind the columns determine."""
    names = set(table.column_names)
    kind = next(kind for kind, schema in SCHEMAS.items() if names == set(schema.names))
    columns = [name for name in SCHEMAS[kind].names if name not in ("size", "tokens")]
    return [
        kind(**{name: _frozen(value) for name, value in row.items()})
        for row in table.select(columns).to_pylist()
    ]


def _frozen(value: Any) -> Any:
    """Return a value with all lists, nested ones too, as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def read_examples(file: Path) -> list[Example]:
    """Read all rows of a file, in order."""
    return to_examples(pq.read_table(file))
