"""Damaged files, other forms and odd columns: a reject, or one sentence with what was found."""

import gzip
import json
import pickle
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.data.files import BadFile, column_names, none_usable
from orchestrator.data.pairs import read_pairs
from orchestrator.data.rejects import BadRow, field, text
from orchestrator.data.row_forms import MAX_RANKED, TOO_MANY_RANKED
from orchestrator.data.rows import DUPLICATE_FIELD, MAX_LEVELS, NESTED, NOT_JSON, Row, read_rows
from orchestrator.data.shards import check_usable, read_shard, split_into_shards

ROWS = [{"prompt": f"order {i} .", "chosen": "yes .", "rejected": "no ."} for i in range(400)]


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def prompt_of(number: int, row: Row) -> str:
    return text("prompt", field(row, "prompt"))


def by_rows(place: Path) -> int:
    return len(list(read_rows(place)))


def by_pairs(place: Path) -> int:
    pairs, rejects = read_pairs(place)
    return len(pairs) + len(rejects)


def by_shards(place: Path) -> int:
    file = split_into_shards(str(place), 50, prompt_of, place.parent, {"prompt"})
    check_usable(file, prompt_of)
    return sum(len(read_shard(file, part, prompt_of).numbers) for part in file.shards)


READERS: list[Callable[[Path], int]] = [by_rows, by_pairs, by_shards]


def refused(read: Callable[[Path], int], place: Path) -> str:
    with pytest.raises(BadFile) as error:
        read(place)
    said = str(error.value)
    assert said.startswith(f"{place}: ") and "\n" not in said
    assert str(pickle.loads(pickle.dumps(error.value))) == said  # it comes from other processes
    return said


@pytest.mark.parametrize("read", READERS)
def test_gzip_that_is_cut_off_or_damaged_says_behind_which_line(
    read: Callable[[Path], int], tmp_path: Path
) -> None:
    place = tmp_path / "rows.jsonl.gz"
    packed = gzip.compress(lines(ROWS))
    place.write_bytes(packed)
    assert read(place) == len(ROWS)
    place.write_bytes(packed[: len(packed) // 2])
    said = refused(read, place)
    assert "cannot be read after line " in said and "end too early" in said
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # of the checksum: all rows seem fine
    place.write_bytes(bytes(flipped))
    assert "cannot be read after line 400: CRC check failed" in refused(read, place)
    middle = bytearray(packed)
    middle[len(packed) // 2] ^= 255
    place.write_bytes(bytes(middle))
    assert "cannot be read after line" in refused(read, place)
    place.write_bytes(lines(ROWS))
    assert "Not a gzipped file" in refused(read, place)
    with pytest.raises(zlib.error):
        zlib.decompress(b"no such thing")  # what a damaged stream raises, and no OSError is


@pytest.mark.parametrize("read", READERS)
def test_parquet_that_is_cut_off_or_damaged_is_one_sentence(
    read: Callable[[Path], int], tmp_path: Path
) -> None:
    place = tmp_path / "rows.parquet"
    table = pa.Table.from_pylist(ROWS)
    checked = {"write_page_checksum": True, "use_dictionary": False}
    pq.write_table(table, place, row_group_size=100, **checked)
    content = place.read_bytes()
    assert read(place) == len(ROWS)
    for size in (0, 3, len(content) // 2, len(content) - 1):
        place.write_bytes(content[:size])
        assert "cannot be read as Parquet" in refused(read, place)
    place.write_bytes(lines(ROWS))
    assert "cannot be read as Parquet" in refused(read, place)
    page = pq.ParquetFile(pa.BufferReader(content)).metadata.row_group(2).column(0)
    flipped = bytearray(content)
    flipped[page.data_page_offset + page.total_compressed_size * 3 // 4] ^= 1
    place.write_bytes(bytes(flipped))
    said = refused(read, place)
    where = "rows 201 to 250" if read is by_shards else "after row 0, columns prompt, chosen, rej"
    assert f"cannot be read as Parquet{' ' if read is not by_shards else ', '}{where}" in said
    assert ("(damaged columns: prompt)" in said) == (read is by_shards)


@pytest.mark.parametrize("read", [by_pairs, by_shards])
def test_columns_that_are_not_used_are_not_looked_into(
    read: Callable[[Path], int], tmp_path: Path
) -> None:
    raw = pa.array([b"caf\xe9"] * len(ROWS), pa.binary())
    table = pa.Table.from_pylist(ROWS)
    odd = {
        "text": pa.Array.from_buffers(pa.string(), len(ROWS), raw.buffers()),
        "time": pa.array([2**62] * len(ROWS), pa.timestamp("us")),
        "day": pa.array([2**30] * len(ROWS), pa.date32()),
    }
    for name, column in odd.items():
        table = table.append_column(name, column)
    pq.write_table(table, tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == len(ROWS)


def test_a_damaged_column_that_is_not_used_does_not_end_the_pairs(tmp_path: Path) -> None:
    place = tmp_path / "x.parquet"
    noise = [{**row, "other": f"{i:040x}"} for i, row in enumerate(ROWS)]
    pq.write_table(
        pa.Table.from_pylist(noise), place, write_page_checksum=True, use_dictionary=False
    )
    content = bytearray(place.read_bytes())
    column = pq.read_metadata(place).row_group(0).column(3)
    assert column.path_in_schema == "other"
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    place.write_bytes(bytes(content))
    assert by_pairs(place) == len(ROWS)
    assert "damaged columns: other)" in refused(by_shards, place)


def test_two_columns_of_one_name_are_refused_where_they_are_read(tmp_path: Path) -> None:
    place = tmp_path / "x.parquet"
    names = ["prompt", "chosen", "rejected", "prompt"]
    pq.write_table(pa.Table.from_arrays([pa.array(["a", "b"])] * 4, names), place)
    for read in (by_pairs, by_shards, by_rows):
        said = refused(read, place)
        assert "has several columns named 'prompt'; columns found: prompt, chosen, rej" in said
    pq.write_table(
        pa.Table.from_arrays(
            [pa.array(["a"]), pa.array(["b"]), pa.array(["c"]), *[pa.array([1])] * 2],
            ["prompt", "chosen", "rejected", "n", "n"],
        ),
        place,
    )
    assert by_pairs(place) == 1  # which does not read them
    assert "several columns named 'n'" in refused(by_shards, place)


def test_a_field_that_is_there_twice_is_a_reject(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    place.write_text('{"prompt": "a", "prompt": "b"}\n{"a": [{"b": 1, "b": 2}]}\n{"prompt": "c"}\n')
    found = list(read_rows(place))
    assert [getattr(item, "reason", None) for item in found] == [
        DUPLICATE_FIELD,
        DUPLICATE_FIELD,
        None,
    ]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "[" + ",\n".join(map(json.dumps, ROWS)) + "]",
        "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]",
        "\ufeff[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]",
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".jsonl"])
def test_a_json_array_says_that_lines_are_read(content: str, suffix: str, tmp_path: Path) -> None:
    place = tmp_path / f"x{suffix}"
    raw = content.encode()
    place.write_bytes(gzip.compress(raw) if suffix.endswith(".gz") else raw)
    assert "a JSON array, valid is one object a line (`jq -c" in refused(by_shards, place)


def test_indented_json_says_that_lines_are_read(tmp_path: Path) -> None:
    place = tmp_path / "x.json"
    place.write_text("\n\n" + "\n".join(json.dumps(row, indent=1) for row in ROWS))
    for read in READERS:
        assert "JSON over several lines, valid is one object a line" in refused(read, place)


def test_a_first_line_that_is_only_bad_is_a_reject(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    for first in ("[1, 2]", "[oops", "{oops", '"text"', "7"):
        place.write_text(f"{first}\n" + json.dumps(ROWS[0]) + "\n")
        assert by_shards(place) == 1 and by_pairs(place) == 2


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "has no rows; columns found: none"),
        ([{"text": "a", "n": 1}], "row 1: missing field: prompt; columns found: text, n"),
        ([{"prompt": 7}, {"prompt": 8}], "none of its 2 rows can be used; row 1: wrong type: prom"),
    ],
)
def test_a_file_without_a_row_that_can_be_used_says_which_columns_it_has(
    rows: list[Any], reason: str, tmp_path: Path
) -> None:
    place = tmp_path / "x.jsonl"
    place.write_bytes(lines(rows))
    assert reason in refused(by_shards, place)
    table = pa.Table.from_pylist(
        rows, schema=None if rows else pa.schema([("prompt", pa.string())])
    )
    pq.write_table(table, tmp_path / "x.parquet")
    said = refused(by_shards, tmp_path / "x.parquet")
    if not rows:
        assert "has no rows; columns found: prompt" in said
    elif "text" in rows[0]:
        assert re.search(
            r"has none of the columns that are read; valid: .*; columns found: text, n", said
        )
    else:
        assert reason in said


def test_of_many_columns_some_are_named(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    place.write_bytes(lines([{f"c{i}": i for i in range(50)}, {"other": 1}]))
    assert len(column_names(str(place))) == 51
    said = str(none_usable(str(place), 2, "no", 1))
    assert said.endswith("columns found: " + ", ".join(f"c{i}" for i in range(20)) + " and 31 more")


def nested(levels: int) -> bytes:
    return b'{"prompt": "x", "deep": ' + b"[" * levels + b"]" * levels + b"}\n"


def test_rows_that_are_nested_for_ever_are_rejects_and_deep_ones_are_kept(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    place.write_bytes(nested(MAX_LEVELS - 2) + nested(MAX_LEVELS + 1) + nested(800) + b"[" * 9_999)
    reasons = [getattr(item, "reason", None) for item in read_rows(place)]
    assert reasons == [None, NESTED, NESTED, NOT_JSON]
    file = split_into_shards(str(place), 50, prompt_of, tmp_path)
    (part,) = file.shards
    kept = read_shard(file, part, prompt_of).table
    assert json.loads(kept["deep"][0].as_py()) == json.loads(nested(MAX_LEVELS - 2))["deep"]
    pq.write_table(kept, tmp_path / "kept.parquet")


def test_rows_whose_objects_each_have_fields_of_their_own_are_kept_as_text(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    rows = [{"prompt": "x", "meta": {f"{i}-{j}": j for j in range(20)}} for i in range(500)]
    place.write_bytes(lines(rows))
    file = split_into_shards(str(place), 50, prompt_of, tmp_path)
    assert file.columns.schema.field("meta").type == pa.string()
    tables = [read_shard(file, part, prompt_of).table for part in file.shards]
    found = [json.loads(value) for value in pa.concat_tables(tables)["meta"].to_pylist()]
    assert found == [row["meta"] for row in rows]


def test_numbers_of_any_length_are_compared_and_nothing_else_is_one(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    row = {"prompt": "x", "chosen": "a", "rejected": "b"}
    rated = [(10**400, 1), (1, 10**400), (True, 0), (float("nan"), 1), ("9", 1)]
    place.write_bytes(lines([{**row, "score_chosen": a, "score_rejected": b} for a, b in rated]))
    pairs, rejects = read_pairs(place)
    assert [pair.pair_id for pair in pairs] == ["x-1"]
    assert [reject.reason.split(":")[0] for reject in rejects] == [
        "the rejected one is rated higher", *["wrong type"] * 3,
    ]  # fmt: skip


def test_very_many_ranked_completions_are_a_reject(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    listed = [{"text": f"a {i}", "rank": i} for i in range(MAX_RANKED + 1)]
    place.write_bytes(lines([{"prompt": "x", "completions": listed}]))
    assert [reject.reason for reject in read_pairs(place)[1]] == [TOO_MANY_RANKED]


def test_as_text_each_value_keeps_its_own_type(tmp_path: Path) -> None:
    rows = [
        {"prompt": "x", "v": value}
        for value in (1, 1.5, "1", None, {}, [], [1, "a"], 10**30, {"a": 1}, True)
    ]
    (tmp_path / "x.jsonl").write_bytes(lines([*rows, {"prompt": 7}]))
    file = split_into_shards(str(tmp_path / "x.jsonl"), 3, prompt_of, tmp_path, as_text=True)
    tables = [read_shard(file, part, prompt_of).table for part in file.shards]
    texts = pa.concat_tables(tables)["own_columns"].to_pylist()
    assert [json.loads(t) for t in texts] == rows and file.columns.names == ["prompt", "v"]


def test_a_reader_may_refuse_all_rows_of_the_first_parts(tmp_path: Path) -> None:
    place = tmp_path / "x.jsonl"
    place.write_bytes(lines([*[{"n": 1}] * 120, *ROWS[:2]]))
    assert by_shards(place) == 2

    def none(number: int, row: Row) -> str:
        raise BadRow("no")

    file = split_into_shards(str(place), 50, none, tmp_path)
    with pytest.raises(BadFile, match="none of its 122 rows can be used; row 1: no; columns"):
        check_usable(file, none)
