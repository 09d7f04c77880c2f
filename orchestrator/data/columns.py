"""The columns of JSON rows as Arrow types, inferred from all rows and used for every shard.

A column without a common type (text in one row, a number in another) is stored as JSON text, and so
are objects that are too deep or too wide. Alternatively full rows are stored as JSON text, which
preserves each value's type. Independent of the meaning of the columns.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from orchestrator.data.rows import Row, plain_rows

ROWS_PER_INFERENCE = 1_024  # rows whose types are inferred together
MAX_LEVELS = 16  # nesting levels of a type
MAX_FIELDS = 256  # total fields of all objects in a column: excludes rows with ever new fields
JSON_COLUMN = "own_columns"  # column with full rows as JSON text
# Exceptions of values without a common type.
_NO_ARROW = (pa.ArrowException, ValueError, TypeError, OverflowError)


@dataclass
class Columns:
    """Names and types of columns, inferred row by row; those of a Parquet file are fixed."""

    types: dict[str, pa.DataType | None] = field(default_factory=dict)  # None: as JSON text
    fixed: pa.Schema | None = None
    as_text: bool = False  # whether full rows are stored as JSON text
    _waiting: list[Row] = field(default_factory=list)

    @classmethod
    def of(cls, schema: pa.Schema, as_text: bool = False) -> "Columns":
        """Return the columns of a file with a schema."""
        return cls(dict(zip(schema.names, schema.types, strict=False)), schema, as_text)

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        return list(self.types)

    @property
    def schema(self) -> pa.Schema:
        """Schema of the tables."""
        if self.as_text:
            return pa.schema([(JSON_COLUMN, pa.string())])
        if self.fixed is not None:
            return self.fixed
        return pa.schema([(n, pa.string() if t is None else t) for n, t in self.types.items()])

    def learn(self, row: Row) -> None:
        """Add a row; ``finish`` must follow the last one."""
        if self.as_text:
            self.types |= dict.fromkeys(row)
            return
        self._waiting.append(row)
        if len(self._waiting) == ROWS_PER_INFERENCE:
            self.finish()

    def finish(self) -> None:
        """Infer the types of the waiting rows."""
        values: dict[str, list[object]] = {}
        for row in self._waiting:
            for name, value in row.items():
                values.setdefault(name, []).append(value)
        for name, column in values.items():
            self.types[name] = _unified(self.types.get(name, pa.null()), _type_of(column))
        self._waiting.clear()

    def table(self, rows: Sequence[Row]) -> pa.Table:
        """Convert JSON rows to a table of this schema; missing fields are null.

        Raises:
            ArrowInvalid: a row was not added, and does not fit.
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

    def stored(self, table: pa.Table) -> pa.Table:
        """Convert rows of a Parquet file to their stored form."""
        return _text_table(plain_rows(table)) if self.as_text else table


def row_from_json(text: str) -> Row:
    """Parse a row that was stored as JSON text."""
    return dict(json.loads(text))


def _text_table(rows: Sequence[Row]) -> pa.Table:
    texts = [json.dumps(row, default=_text_of) for row in rows]
    return pa.table({JSON_COLUMN: pa.array(texts, pa.string())})


def _text_of(value: object) -> str:
    """Convert values without a JSON type: bytes, dates, decimals."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _type_of(values: Sequence[object]) -> pa.DataType | None:
    if _is_too_complex(values):
        return None
    try:
        inferred = pa.array(values).type
    except _NO_ARROW:
        return None
    return inferred if _storable(inferred) else None


def _is_too_complex(values: Sequence[object]) -> bool:
    """Return whether the objects in values have too many fields or levels for one type."""
    names: set[tuple[int, str]] = set()
    level = [value for value in values if isinstance(value, (dict, list))]
    for depth in range(MAX_LEVELS):
        if not level:
            return False
        for value in level:
            if isinstance(value, dict):
                names.update((depth, name) for name in value)
        if len(names) > MAX_FIELDS:
            return True
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
    return bool(level)


def _unified(first: pa.DataType | None, second: pa.DataType | None) -> pa.DataType | None:
    """Return the common type of two types, or None."""
    if first is None or second is None or first == second:
        return first if second is not None else None
    schemas = [pa.schema([("x", kind)]) for kind in (first, second)]
    try:
        unified = pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except _NO_ARROW:
        return None
    return unified if _width(unified) <= MAX_FIELDS else None


def _width(kind: pa.DataType) -> int:
    """Return the number of fields of all objects in a type."""
    return sum(1 + _width(kind.field(i).type) for i in range(kind.num_fields))


def _storable(kind: pa.DataType) -> bool:
    """Return whether Parquet can store a type: it has no objects without fields."""
    fields = [kind.field(i) for i in range(kind.num_fields)]
    empty = pa.types.is_struct(kind) and not fields
    return not empty and all(_storable(field.type) for field in fields)


def _as_text(value: object) -> str | None:
    """Return a value as JSON; escapes preserve invalid Unicode."""
    return None if value is None else json.dumps(value)
