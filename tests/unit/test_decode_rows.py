"""The rows of jobs/decode.py from a file to an output: ids, types, and what is left beside it."""

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.present import present
from support.written_rows import decode_rows, read_out

from jobs.batch.decode_output import DecodeOutput
from jobs.batch.decode_rows import SAME_ID
from orchestrator.config.load import ConfigError

OUTS = ["out", "out.jsonl", "out.parquet"]
VALUES: list[Any] = [1, 1.5, "1", None, {}, [], [1, "a", None], 10**30, {"a": 1}, True, "\ud800"]


def write(place: Path, rows: list[Any]) -> Path:
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def reasons(out: Path) -> dict[int, str]:
    rejects = DecodeOutput(out).rejects
    return {row["row"]: row["reason"] for row in pq.read_table(rejects).to_pylist()}


def test_json_lines_keep_each_values_own_type(word_policy: str, tmp_path: Path) -> None:
    rows = [{"prompt": "order 1 .", "v": value} for value in VALUES]
    ids: list[Any] = ["a", 7, None]
    rows += [{"prompt": "order 2 .", "prompt_id": i, "only": [0.5]} for i in ids]
    source = write(tmp_path / "rows.jsonl", rows)
    decode_rows(word_policy, source, tmp_path / "out.jsonl")
    found = read_out(tmp_path / "out.jsonl")
    assert [(type(row["v"]), row["v"]) for row in found[: len(VALUES)]] == [
        (type(value), value) for value in VALUES
    ]
    assert [row["prompt_id"] for row in found[-3:]] == ["a", 7, "rows-14"]
    assert "only" not in found[0] and found[-1]["only"] == [0.5]
    assert list(found[0])[:4] == ["row", "prompt_id", "prompt", "v"]
    assert found[0]["token_ids"] == [5, 6] and found[0]["margin"] is None  # infinite: no JSON


def test_json_lines_of_a_parquet_file_keep_its_values_too(word_policy: str, tmp_path: Path) -> None:
    raw = pa.array([b"caf\xe9"], pa.binary())
    columns = {
        "prompt": pa.array(["order 1 ."]), "n": pa.array([3]), "nan": pa.array([float("nan")]),
        "day": pa.array([date(2024, 1, 2)]), "raw": raw,
        "text": pa.Array.from_buffers(pa.string(), 1, raw.buffers()),
        "far": pa.array([2**62], pa.timestamp("us")), "list": pa.array([[1, None]]),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    decode_rows(word_policy, tmp_path / "x.parquet", tmp_path / "out.jsonl")
    (row,) = read_out(tmp_path / "out.jsonl")
    assert (row["n"], row["nan"], row["list"]) == (3, None, [1, None])
    assert (row["day"], row["raw"], row["text"]) == ("2024-01-02", "caf\\xe9", "caf\\xe9")
    assert isinstance(row["far"], str)


@pytest.mark.parametrize("out", OUTS)
def test_of_rows_with_one_id_the_first_is_answered(
    out: str, word_policy: str, tmp_path: Path
) -> None:
    rows = [{"prompt": "order 1 .", "prompt_id": i} for i in ("a", "a", 7, "7", "x-6", None)]
    rows += [{"prompt": "", "prompt_id": "b"}, {"prompt": "order", "prompt_id": "b"}]
    source = write(tmp_path / "x.jsonl", rows)
    with_most = decode_rows(word_policy, source, tmp_path / out, most=2)  # and is killed
    assert with_most.rows == len(rows)
    written = decode_rows(word_policy, source, tmp_path / out)
    assert sorted(written.answered) == [1, 3, 5, 8]
    assert reasons(tmp_path / out) == {2: SAME_ID, 4: SAME_ID, 6: SAME_ID, 7: "empty prompt"}
    assert present(written.summary)["reasons"] == {SAME_ID: 3, "empty prompt": 1}


@pytest.mark.parametrize(
    ("out", "left"),
    [
        ("out", ["out"]),
        ("out.jsonl", ["out.decode.json", "out.jsonl"]),
        ("out.parquet", ["out.decode.json", "out.parquet"]),
    ],
)
def test_nothing_hidden_and_no_empty_rejects_are_left(
    out: str, left: list[str], word_policy: str, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    source = write(tmp_path / "x.jsonl", [{"prompt": "order 1 ."}])
    decode_rows(word_policy, source, tmp_path / "made" / out)
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == left
    if out == "out":
        assert sorted(p.name for p in (tmp_path / "made" / out).iterdir()) == [
            "decode.json", "responses",
        ]  # fmt: skip


BAD: dict[str, tuple[str, bytes, str]] = {
    "cut off": ("x.jsonl.gz", gzip.compress(b'{"prompt": "x"}\n' * 99)[:-9], "end too early"),
    "an array": ("x.json", b'[{"prompt": "x"},\n{"prompt": "y"}]', "a JSON array"),
    "no rows": ("x.jsonl", b"\n\n", "has no rows; columns found: none"),
    "no prompt": ("x.jsonl", b'{"text": "x"}\n', "row 1: missing field: prompt; columns found: t"),
    "a number": ("x.jsonl", b'{"prompt": 7}\n', "row 1: wrong type: prompt is not a list of mes"),
    "no text": ("x.txt", b"\xff\xfe\n", "none of its 1 rows can be used; row 1: not UTF-8"),
    "taken": (
        "x.jsonl",
        b'{"prompt": "x", "score": 1}\n',
        "has columns that the output adds: score",
    ),
    "no Parquet": ("x.parquet", b"PAR1", "cannot be read as Parquet"),
}


@pytest.mark.parametrize("out", OUTS)
@pytest.mark.parametrize(("name", "content", "why"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_answered_is_one_sentence_and_leaves_nothing(
    name: str, content: bytes, why: str, out: str, word_policy: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        decode_rows(word_policy, tmp_path / name, tmp_path / out)
    said = str(error.value)
    assert said.startswith(f"--prompts = {str(tmp_path / name)!r}: ") and why in said
    assert "\n" not in said
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_what_stood_in_a_folder_before_stays_there(word_policy: str, tmp_path: Path) -> None:
    source = write(tmp_path / "x.jsonl", [{"text": "x"}])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError):
        decode_rows(word_policy, source, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError):
        decode_rows(word_policy, source, tmp_path / "empty")
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("out", ["out.jsonl", "out"])
def test_a_file_that_another_program_wrote_is_not_taken_for_a_manifest(
    out: str, tmp_path: Path
) -> None:
    output = DecodeOutput(tmp_path / out)
    output.manifest.parent.mkdir(exist_ok=True)
    for content in ("{", "[]", '{"model": "x"}'):
        output.manifest.write_text(content)
        with pytest.raises(ConfigError, match="exists and was not written by this command"):
            output.begin({}, force=False)
    assert output.begin({}, force=True) is None
