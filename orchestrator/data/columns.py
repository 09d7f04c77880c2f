"""The columns of JSON rows as Arrow types: found from all rows, kept in every part of a file.

A column that has no one type (text here, a number there) is kept as JSON text, and so are objects
that are too deep or too wide. Or whole rows are kept as JSON text, each value of its own type.
Knows nothing of what the columns mean.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from orchestrator.data.rows import Row, plain_rows

ROWS_AT_ONCE = 1_024  # rows whose types are found together
MOST_LEVELS = 16  # of a type
MOST_FIELDS = 256  # of all objects in a column: rows that each bring their own are no type
OWN = "own_columns"  # where whole rows are kept
# What values without a common type raise.
_NO_ARROW = (pa.ArrowException, ValueError, TypeError, OverflowError)


@dataclass
class Columns:
    """Names and types, learned row by row; of a Parquet file they are known."""

    types: dict[str, pa.DataType | None] = field(default_factory=dict)  # None: as JSON text
    known: pa.Schema | None = None
    as_text: bool = False  # whether rows are kept whole, as JSON text
    _waiting: list[Row] = field(default_factory=list)

    @classmethod
    def of(cls, schema: pa.Schema, as_text: bool = False) -> "Columns":
        """Those of a file that states them."""
        return cls(dict(zip(schema.names, schema.types, strict=False)), schema, as_text)

    @property
    def names(self) -> list[str]:
        """Of all columns."""
        return list(self.types)

    @property
    def schema(self) -> pa.Schema:
        """Of the tables."""
        if self.as_text:
            return pa.schema([(OWN, pa.string())])
        if self.known is not None:
            return self.known
        return pa.schema([(n, pa.string() if t is None else t) for n, t in self.types.items()])

    def learn(self, row: Row) -> None:
        """One more row; ``learn_rest`` ends the rows."""
        if self.as_text:
            self.types |= dict.fromkeys(row)
            return
        self._waiting.append(row)
        if len(self._waiting) == ROWS_AT_ONCE:
            self.learn_rest()

    def learn_rest(self) -> None:
        """Takes the rows that wait into account."""
        values: dict[str, list[Any]] = {}
        for row in self._waiting:
            for name, value in row.items():
                values.setdefault(name, []).append(value)
        for name, some in values.items():
            self.types[name] = _both(self.types.get(name, pa.null()), _type_of(some))
        self._waiting.clear()

    def table(self, rows: Sequence[Row]) -> pa.Table:
        """JSON rows as a table of this schema; what a row lacks is null.

        Raises:
            ArrowInvalid: a row was not learned, and does not fit.
        """
        if self.as_text:
            return _text_table(rows)
        arrays = [
            pa.array([_as_text(row.get(name)) for row in rows], pa.string())
            if kind is None
            else pa.array([row.get(name) for row in rows], kind)
            for name, kind in self.types.items()
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def kept(self, table: pa.Table) -> pa.Table:
        """Rows of a Parquet file as they are kept."""
        return _text_table(plain_rows(table)) if self.as_text else table


def own_row(text: str) -> Row:
    """A row of a table of whole rows, back."""
    return dict(json.loads(text))


def _text_table(rows: Sequence[Row]) -> pa.Table:
    texts = [json.dumps(row, default=_text_of) for row in rows]
    return pa.table({OWN: pa.array(texts, pa.string())})


def _text_of(value: Any) -> str:
    """What JSON has no like of: bytes, dates, decimals."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _type_of(values: Sequence[Any]) -> pa.DataType | None:
    if _is_vast(values):
        return None
    try:
        found = pa.array(values).type
    except _NO_ARROW:
        return None
    return found if _storable(found) else None


def _is_vast(values: Sequence[Any]) -> bool:
    """Whether the objects in some values have too many fields, or are too deep, for one type."""
    names: set[tuple[int, str]] = set()
    level = [value for value in values if isinstance(value, (dict, list))]
    for depth in range(MOST_LEVELS):
        if not level:
            return False
        for value in level:
            if isinstance(value, dict):
                names.update((depth, name) for name in value)
        if len(names) > MOST_FIELDS:
            return True
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [part for parts in inner for part in parts if isinstance(part, (dict, list))]
    return bool(level)


def _both(first: pa.DataType | None, second: pa.DataType | None) -> pa.DataType | None:
    """The type of a column that holds values of both."""
    if first is None or second is None or first == second:
        return first if second is not None else None
    schemas = [pa.schema([("x", kind)]) for kind in (first, second)]
    try:
        found = pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except _NO_ARROW:
        return None
    return found if _width(found) <= MOST_FIELDS else None


def _width(kind: pa.DataType) -> int:
    """Fields of all objects in a type."""
    return sum(1 + _width(kind.field(i).type) for i in range(kind.num_fields))


def _storable(kind: pa.DataType) -> bool:
    """Parquet has no objects without fields."""
    fields = [kind.field(i) for i in range(kind.num_fields)]
    empty = pa.types.is_struct(kind) and not fields
    return not empty and all(_storable(field.type) for field in fields)


def _as_text(value: Any) -> str | None:
    """JSON; escapes keep what is no Unicode."""
    return None if value is None else json.dumps(value)
