"""The columns of JSON rows as Arrow types: found from all rows, kept in every part of a file.

A column that has no one type (text here, a number there) is kept as JSON text. Knows nothing of
what the columns mean.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from orchestrator.data.rows import Row

ROWS_AT_ONCE = 1_024  # rows whose types are found together
# What values without a common type raise.
_NO_ARROW = (pa.ArrowException, ValueError, TypeError, OverflowError)


@dataclass
class Columns:
    """Names and types, learned row by row; of a Parquet file they are known."""

    types: dict[str, pa.DataType | None] = field(default_factory=dict)  # None: as JSON text
    known: pa.Schema | None = None
    _waiting: list[Row] = field(default_factory=list)

    @classmethod
    def of(cls, schema: pa.Schema) -> "Columns":
        """Those of a file that states them."""
        return cls(dict(zip(schema.names, schema.types, strict=True)), schema)

    @property
    def schema(self) -> pa.Schema:
        """Of the tables."""
        if self.known is not None:
            return self.known
        return pa.schema([(n, pa.string() if t is None else t) for n, t in self.types.items()])

    def learn(self, row: Row) -> None:
        """One more row; ``learn_rest`` ends the rows."""
        self._waiting.append(row)
        if len(self._waiting) == ROWS_AT_ONCE:
            self.learn_rest()

    def learn_rest(self) -> None:
        """Takes the rows that wait into account."""
        for name in {name: None for row in self._waiting for name in row}:
            found = _type_of([row.get(name) for row in self._waiting])
            self.types[name] = _both(self.types.get(name, pa.null()), found)
        self._waiting.clear()

    def table(self, rows: Sequence[Row]) -> pa.Table:
        """JSON rows as a table of this schema; what a row lacks is null.

        Raises:
            ArrowInvalid: a row was not learned, and does not fit.
        """
        arrays = [
            pa.array([_as_text(row.get(name)) for row in rows], pa.string())
            if kind is None
            else pa.array([row.get(name) for row in rows], kind)
            for name, kind in self.types.items()
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def _type_of(values: Sequence[Any]) -> pa.DataType | None:
    try:
        found = pa.array(values).type
    except _NO_ARROW:
        return None
    return found if _storable(found) else None


def _both(first: pa.DataType | None, second: pa.DataType | None) -> pa.DataType | None:
    """The type of a column that holds values of both."""
    if first is None or second is None or first == second:
        return first if second is not None else None
    schemas = [pa.schema([("x", kind)]) for kind in (first, second)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except _NO_ARROW:
        return None


def _storable(kind: pa.DataType) -> bool:
    """Parquet has no objects without fields."""
    fields = [kind.field(i) for i in range(kind.num_fields)]
    empty = pa.types.is_struct(kind) and not fields
    return not empty and all(_storable(field.type) for field in fields)


def _as_text(value: Any) -> str | None:
    """JSON; escapes keep what is no Unicode."""
    return None if value is None else json.dumps(value)
