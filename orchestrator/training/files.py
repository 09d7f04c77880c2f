"""Training rows on disk: token ids in Parquet, in the order that a training's plan refers to."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.training.examples import Example, ImplicitExample, PairExample, TextExample
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
            ("references", pa.list_(pa.float64())),
            ("unrelated_ids", _IDS),
            ("unrelated_reference", pa.float64()),
            *_COUNTS,
        ]
    ),
}


class ExampleWriter:
    """Writes rows of one kind as they come, GROUP of them at a time; use it in a `with`."""

    def __init__(self, file: Path) -> None:
        self._file, self._waiting, self.rows = file, list[Example](), 0
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
        """Adds a row."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        schema = SCHEMAS[type(self._waiting[0])]
        columns = {name: [getattr(row, name) for row in self._waiting] for name in schema.names}
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, schema)
        self._writer.write_table(pa.table(columns, schema=schema), row_group_size=GROUP)
        self._waiting = []


def write_examples(file: Path, examples: Iterable[Example]) -> int:
    """Writes rows of one kind, in order; how many they were.

    Raises:
        ValueError: there are no rows; a training without rows is an error of what made them.
    """
    with ExampleWriter(file) as writer:
        for row in examples:
            writer.add(row)
    return writer.rows


def sizes_and_tokens(file: Path) -> tuple[list[int], list[int]]:
    """What each row counts for in a batch, and its tokens: all that a plan needs of the rows."""
    table = pq.read_table(file, columns=["size", "tokens"])
    return table["size"].to_pylist(), table["tokens"].to_pylist()


def read_rows(file: Path, rows: Sequence[int]) -> pa.Table:
    """Some rows by number, in the order given; only their groups are read."""
    wanted = np.asarray(rows, dtype=np.int64)
    groups = np.unique(wanted // GROUP)
    table = pq.ParquetFile(file).read_row_groups(groups.tolist())
    # A group's first row in the table: all groups before it are full.
    place = np.searchsorted(groups, wanted // GROUP) * GROUP + wanted % GROUP
    return table.take(pa.array(place))


def to_examples(table: pa.Table) -> list[Example]:
    """Rows of a table; its columns tell their kind."""
    names = set(table.column_names)
    kind = next(kind for kind, schema in SCHEMAS.items() if names == set(schema.names))
    columns = [name for name in SCHEMAS[kind].names if name not in ("size", "tokens")]
    return [
        kind(**{name: _frozen(value) for name, value in row.items()})
        for row in table.select(columns).to_pylist()
    ]


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def read_examples(file: Path) -> list[Example]:
    """All rows in their order."""
    return to_examples(pq.read_table(file))
