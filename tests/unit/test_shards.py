"""A file in shards: every row once, for any format and shard size."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.data import shards
from orchestrator.data.columns import Columns
from orchestrator.data.rejects import BadRow, field, text
from orchestrator.data.rows import Row
from orchestrator.data.shards import (
    MultipleItems,
    ShardedFile,
    ShardRows,
    read_shard,
    split_into_shards,
)


def parse(number: int, row: Row) -> str:
    return text("a", field(row, "a"))


def read_all(file: ShardedFile) -> list[ShardRows]:
    return [read_shard(file, shard, parse) for shard in file.shards]


ROWS: list[dict[str, Any]] = [{"a": f"text {i}", "n": i} for i in range(10)]


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def written(folder: Path, suffix: str, row_group: int = 3) -> str:
    """Rows 1 to 10; in JSONL formats a bad line and a blank one come before row 4."""
    place = folder / f"rows{suffix}"
    content = lines(ROWS[:3]) + b"{no json\n\n" + lines(ROWS[3:])
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), place, row_group_size=row_group)
    elif suffix == ".jsonl.gz":
        place.write_bytes(gzip.compress(content))
    else:
        place.write_bytes(content)
    return str(place)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_parts_hold_every_row_once_in_order_with_its_number(
    suffix: str, size: int, tmp_path: Path
) -> None:
    source = written(tmp_path, suffix)
    file = split_into_shards(source, size, parse, tmp_path)
    found = read_all(file)
    table = pa.concat_tables([part.table for part in found])
    assert table.to_pylist() == ROWS
    assert [value for part in found for value in part.parsed] == [row["a"] for row in ROWS]
    extra = 0 if suffix == ".parquet" else 2
    numbers = [n for part in found for n in part.numbers]
    assert numbers == [1, 2, 3, *range(4 + extra, 11 + extra)]
    rejects = [reject for part in found for reject in part.rejects]
    assert [(r.row, r.reason, r.content) for r in rejects] == (
        [(4, "not JSON", "{no json")] if extra else []
    )
    assert file.rows == 10 + len(rejects)
    lengths = [shard.stop - shard.start for shard in file.shards]
    assert all(lengths) and [shard.index for shard in file.shards] == list(range(len(lengths)))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_row_that_stands_for_several_is_there_once_for_each(suffix: str, tmp_path: Path) -> None:
    def several(number: int, row: Row) -> MultipleItems:
        items = [f"{row['a']} {i}" for i in range(row["n"] % 3)]
        return MultipleItems((*items, BadRow("half of it")))

    file = split_into_shards(written(tmp_path, suffix), 4, parse, tmp_path)
    found = [read_shard(file, shard, several) for shard in file.shards]
    expected = [row for row in ROWS for _ in range(row["n"] % 3)]
    assert [row for part in found for row in part.table.to_pylist()] == expected
    parsed = [value for part in found for value in part.parsed]
    assert parsed == [f"{row['a']} {i}" for row in ROWS for i in range(row["n"] % 3)]
    for part in found:
        assert len(part.numbers) == len(part.parsed) == part.table.num_rows
    reasons = [reject.reason for part in found for reject in part.rejects]
    assert reasons.count("half of it") == len(ROWS)


def test_gzip_and_huge_row_groups_are_unpacked_once_and_only_they(tmp_path: Path) -> None:
    for name in ("plain", "packed", "small", "huge"):
        (tmp_path / name).mkdir()
    packed = split_into_shards(written(tmp_path, ".jsonl.gz"), 2, parse, tmp_path / "packed")
    assert packed.path == str(tmp_path / "packed" / "unpacked.jsonl")
    plain = split_into_shards(written(tmp_path, ".jsonl"), 2, parse, tmp_path / "plain")
    assert plain.path == plain.source and plain.bytes == packed.bytes == len(
        Path(packed.path).read_bytes()
    )
    small = split_into_shards(written(tmp_path, ".parquet", 10), 1, parse, tmp_path / "small")
    assert small.path == small.source
    rows = [{"a": str(i), "n": i} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "huge.parquet", row_group_size=40)
    huge = split_into_shards(str(tmp_path / "huge.parquet"), 2, parse, tmp_path / "huge")
    assert pq.read_metadata(huge.path).num_row_groups == 20
    assert pa.concat_tables([part.table for part in read_all(huge)]).to_pylist() == rows


def test_a_large_file_has_larger_parts_instead_of_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_SHARDS", 3)
    for suffix in (".jsonl", ".parquet"):
        file = split_into_shards(written(tmp_path, suffix), 1, parse, tmp_path)
        assert len(file.shards) == 3
        assert pa.concat_tables([part.table for part in read_all(file)]).to_pylist() == ROWS


def test_a_parquet_file_without_rows_has_a_part_without_rows(tmp_path: Path) -> None:
    empty = pa.schema([("a", pa.string())]).empty_table()
    pq.write_table(empty, tmp_path / "empty.parquet")
    file = split_into_shards(str(tmp_path / "empty.parquet"), 5, parse, tmp_path)
    (part,) = read_all(file)
    assert part.table.schema == empty.schema and part.parsed == [] and file.rows == 0


def test_refused_rows_of_parquet_leave_the_others_in_their_places(tmp_path: Path) -> None:
    rows = [{"a": None if i in (1, 4) else str(i), "n": i} for i in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=4)
    file = split_into_shards(str(tmp_path / "x.parquet"), 3, parse, tmp_path)
    first, second = read_all(file)
    assert first.numbers == [1, 3] and second.numbers == [4, 6]
    assert second.table.to_pylist() == [rows[3], rows[5]]
    assert [(r.row, r.reason) for r in second.rejects] == [(5, "missing field: a")]


# What a column's values are, and what is kept of them.
KINDS: list[tuple[list[Any], list[Any], pa.DataType]] = [
    ([1, None, 2], [1, None, 2], pa.int64()),
    ([1, 2.5], [1.0, 2.5], pa.float64()),
    (["x", "y"], ["x", "y"], pa.string()),
    ([True, False], [True, False], pa.bool_()),
    ([1, "x"], ["1", '"x"'], pa.string()),
    ([{}], ["{}"], pa.string()),
    ([10**30], [str(10**30)], pa.string()),
    (["\ud800"], ['"\\ud800"'], pa.string()),
    ([[{"role": "user", "content": "hi"}]],) * 2
    + (pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),),
]


@pytest.mark.parametrize("at_once", [1, 100])
@pytest.mark.parametrize(("values", "kept", "kind"), [k for k in KINDS if k[2] is not None])
def test_a_column_has_one_type_in_every_part_or_is_json_text(
    values: list[Any], kept: list[Any], kind: pa.DataType, at_once: int,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr("orchestrator.data.columns.ROWS_PER_INFERENCE", at_once)
    rows = [{"c": value} for value in values]
    columns = Columns()
    for row in rows:
        columns.learn(row)
    columns.finish()
    tables = [columns.table([row]) for row in rows]
    assert {str(table.schema.field("c").type) for table in tables} == {str(kind)}
    assert [table["c"][0].as_py() for table in tables] == kept
    pq.write_table(pa.concat_tables(tables), tmp_path / "c.parquet")


def test_rows_that_are_refused_have_no_say_in_a_type(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    place.write_bytes(lines([{"a": "x", "c": 1}, {"a": 5, "c": "text"}, {"c": []}, {"a": "y"}]))
    file = split_into_shards(str(place), 2, parse, tmp_path)
    assert file.columns.schema == pa.schema([("a", pa.string()), ("c", pa.int64())])
    table = pa.concat_tables([part.table for part in read_all(file)])
    assert table.to_pylist() == [{"a": "x", "c": 1}, {"a": "y", "c": None}]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({"a": st.text()}, optional={"c": VALUES}), min_size=1),
       st.integers(1, 4))  # fmt: skip
def test_any_rows_can_be_kept_and_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], size: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "x.jsonl").write_bytes(lines(rows))
    file = split_into_shards(str(folder / "x.jsonl"), size, parse, folder)
    table = pa.concat_tables([part.table for part in read_all(file)])
    pq.write_table(table, folder / "x.parquet")

    def good(row: Row) -> bool:
        try:
            parse(0, row)
        except BadRow:
            return False
        return True

    kept = [row for row in rows if good(row)]
    assert pq.read_table(folder / "x.parquet").num_rows == len(kept)
    if kept:
        assert table["a"].to_pylist() == [row["a"] for row in kept]
