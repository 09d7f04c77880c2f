"""Bad rows land in the rejects table, each with its own reason; the good ones come in order."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.data import rejects as checks
from orchestrator.data.messages import NOT_A_MESSAGE, UNKNOWN_ROLE
from orchestrator.data.pairs import prompt_id, read_pairs
from orchestrator.data.rejects import (
    CONTENT_CHARACTERS,
    BadRow,
    conversation_too_long,
    make_reject,
    prompt_too_long,
    reasons,
    write_rejects,
)
from orchestrator.data.row_forms import RowPair, single_pair_of
from orchestrator.data.rows import file_stem, read_rows
from orchestrator.records import PreferencePair, Prompt, Reject

USER = {"role": "user", "content": "my kettle leaks"}
AGENT = {"role": "assistant", "content": "which one ?"}


def row(prompt: Any = "my kettle leaks", chosen: Any = "seal it", rejected: Any = "bye") -> bytes:
    return json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}).encode()


FIRST = row(prompt="first")
BAD_ROWS: list[tuple[bytes, str]] = [
    (b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}', "not UTF-8"),
    (b'{"prompt": "x", "chosen": ', "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b'["x", "a", "b"]', "not an object"),
    (b'{"prompt": "x", "chosen": "a"}', "missing field: rejected"),
    (row(chosen=None), "missing field: chosen"),
    (row(rejected=7), "wrong type: rejected is not a list of messages"),
    (row(prompt={"role": "user"}), "wrong type: prompt is not a list of messages"),
    (row(prompt=["x"]), NOT_A_MESSAGE.format("prompt")),
    (row(prompt=[{"role": "user", "content": 7}]), "wrong type: prompt is not text"),
    (row(prompt=" \n"), "empty prompt"),
    (row(prompt=[]), "empty prompt"),
    (row(chosen=""), "empty response: chosen"),
    (row(rejected=" \t"), "empty response: rejected"),
    (row(rejected="seal it "), "chosen and rejected are equal"),
    (b'{"prompt": "x", "chosen": "\\ud83d", "rejected": "b"}', "invalid unicode: chosen"),
    (row(rejected="b\0"), "NUL character: rejected"),
    (FIRST, "duplicate row"),
    (row(prompt=[{"role": "tool", "content": "x"}]), UNKNOWN_ROLE),
    (row(prompt=[USER, AGENT]), "conversation does not end with the user"),
    (row(chosen=[AGENT, USER]), "chosen: the last message is not the assistant's"),
    (row(chosen=[USER, AGENT], prompt="another"), "the histories of chosen and rejected differ"),
]


def test_each_bad_row_has_its_reason_and_good_rows_come_in_order(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [FIRST]
    for number, (bad, _) in enumerate(BAD_ROWS):
        lines += [bad, row(prompt=f"good {number}")]
    path.write_bytes(b"\n".join(lines))

    pairs, rejects = read_pairs(path)

    assert [(r.row, r.reason) for r in rejects] == [
        (2 * i + 2, reason) for i, (_, reason) in enumerate(BAD_ROWS)
    ]
    assert [p.prompt.messages[0]["content"] for p in pairs] == [
        "first",
        *(f"good {number}" for number in range(len(BAD_ROWS))),
    ]
    assert [p.pair_id for p in pairs] == [f"pairs-{2 * i + 1}" for i in range(len(pairs))]
    assert {r.source for r in rejects} == {str(path)}
    write_rejects(tmp_path / "made" / "rejects.parquet", rejects)
    table = pq.read_table(tmp_path / "made" / "rejects.parquet")
    assert table.column_names == ["source", "row", "reason", "content"]
    assert table["reason"].to_pylist() == [reason for _, reason in BAD_ROWS]
    contents = dict(zip(table["row"].to_pylist(), table["content"].to_pylist(), strict=True))
    assert contents[2] == '{"prompt": "caf\\xe9", "chosen": "a", "rejected": "b"}'
    assert contents[6] == "[" * CONTENT_CHARACTERS
    assert "\\ud83d" in contents[32]  # a lone surrogate is shown escaped: Parquet holds UTF-8 only


def test_a_good_row_keeps_its_text_and_its_truth(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    messages = [{"role": "system", "content": "be brief"}, USER, AGENT, USER]
    good = {"prompt": messages, "chosen": " a \ufffd ", "rejected": "b", "ground_truth": 18}
    path.write_text(json.dumps(good) + "\n")

    pairs, rejects = read_pairs(path)

    prompt = Prompt(prompt_id(messages), tuple(messages), {"ground_truth": "18"})
    assert (pairs, rejects) == ([PreferencePair("x-1", prompt, " a \ufffd ", "b")], [])


@pytest.mark.parametrize("truth", [True, ["18"], {"answer": 18}])
def test_a_truth_that_is_neither_text_nor_number_is_refused(tmp_path: Path, truth: object) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        json.dumps({"prompt": "x", "chosen": "a", "rejected": "b", "ground_truth": truth})
    )

    assert [r.reason for r in read_pairs(path)[1]] == ["wrong type: ground_truth is not text"]


def test_responses_may_be_conversations_that_hold_the_prompt() -> None:
    whole = [USER, {"role": "assistant", "content": "seal it"}]
    other = [USER, {"role": "assistant", "content": "bye"}]
    expected = RowPair("", (USER,), "seal it", "bye")

    assert single_pair_of({"chosen": whole, "rejected": other}) == expected
    assert single_pair_of({"prompt": None, "chosen": whole, "rejected": other}) == expected
    assert single_pair_of({"prompt": [USER], "chosen": whole[1:], "rejected": other}) == expected
    assert (
        single_pair_of({"prompt": USER["content"], "chosen": whole, "rejected": "bye"}) == expected
    )
    with pytest.raises(BadRow, match="histories"):
        single_pair_of({"chosen": whole, "rejected": [AGENT, *other]})
    with pytest.raises(BadRow, match="missing field: prompt"):
        single_pair_of({"chosen": whole[1:], "rejected": other[1:]})


def test_a_prompt_has_one_id_whatever_surrounds_it() -> None:
    base = prompt_id([USER])

    assert prompt_id([{"content": " my kettle leaks\n", "role": "user"}]) == base
    assert prompt_id([{"role": "user", "content": "my kettle  leaks"}]) != base
    assert prompt_id([{"role": "system", "content": "my kettle leaks"}]) != base
    assert prompt_id([USER, USER]) != base
    assert base == "b98748de483cbb69"  # the same on every machine and in every process


def test_the_same_prompt_with_other_responses_is_no_duplicate(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([row(), row(rejected="no"), row(chosen="bye", rejected="seal it")]))

    pairs, rejects = read_pairs(path)

    assert len({pair.prompt.prompt_id for pair in pairs}) == 1
    assert (len(pairs), rejects) == (3, [])


def test_line_numbers_count_blank_lines_that_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}\n7\n\n')

    assert list(read_rows(path)) == [
        (1, {"a": 1}),
        (4, {"a": 2}),
        Reject(str(path), 5, "not an object", "7"),
    ]


def test_json_lines_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a": 1}\n' * 200_000)  # 1.8 MB: more than any buffer reads ahead
    rows = read_rows(path)

    assert next(rows) == (1, {"a": 1})
    with path.open("r+b") as file:  # what is not read yet may still change
        file.truncate(1_200_000)
    rest = list(rows)
    assert len(rest) < 199_999


def test_a_compressed_file_and_a_uri_read_like_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([row(), b"{"]))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b"\n".join([row(), b"{"])))

    plain = list(read_rows(f"file://{tmp_path}/x.jsonl"))
    packed = list(read_rows(tmp_path / "x.jsonl.gz"))

    assert plain[0] == packed[0] == (1, json.loads(row()))
    assert [type(item) for item in (plain[1], packed[1])] == [Reject, Reject]
    assert file_stem("s3://bucket/x.y.jsonl.gz") == "x.y"
    assert file_stem(tmp_path / "x.parquet") == "x"


def test_parquet_rows_read_like_json_rows(tmp_path: Path) -> None:
    rows = [
        {"prompt": [USER], "chosen": f"a{i}", "rejected": "b" if i != 1_500 else None}
        for i in range(3_000)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))

    pairs, rejects = read_pairs(tmp_path / "x.parquet")

    assert pairs == read_pairs(tmp_path / "x.jsonl")[0]
    assert [(r.row, r.reason) for r in rejects] == [(1_501, "missing field: rejected")]


def test_parquet_text_that_is_not_utf8_is_one_reject_among_good_rows(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9", b"fine"], type=pa.binary())
    invalid = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"a": invalid}), tmp_path / "x.parquet")

    first, bad, last = read_rows(tmp_path / "x.parquet")

    assert (first, last) == ((1, {"a": "good"}), (3, {"a": "fine"}))
    assert isinstance(bad, Reject)
    assert (bad.row, bad.reason) == (2, "not UTF-8")


def test_a_missing_file_and_an_unknown_format_say_what_is_valid(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file; valid is .*\.parquet"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match=r"rows\.csv: unknown format; .*\.jsonl"):
        read_rows(tmp_path / "rows.csv")


def test_an_empty_rejects_table_is_still_a_table(tmp_path: Path) -> None:
    write_rejects(tmp_path / "rejects.parquet", [])

    assert pq.read_schema(tmp_path / "rejects.parquet").equals(checks.SCHEMA)
    assert pq.read_table(tmp_path / "rejects.parquet").num_rows == 0


def test_content_is_cut_to_its_limit_after_escaping(tmp_path: Path) -> None:
    reject = make_reject("x", 1, "r", {"a": "\ud800" * 1_000})
    write_rejects(tmp_path / "r.parquet", [Reject("x", 1, "r", "é" * 600), reject])

    contents = pq.read_table(tmp_path / "r.parquet")["content"].to_pylist()

    assert contents[0] == "é" * CONTENT_CHARACTERS
    assert contents[1] == reject.content
    assert len(reject.content) == CONTENT_CHARACTERS


def test_reasons_are_counted_most_frequent_first() -> None:
    found = [Reject("x", i, reason, "") for i, reason in enumerate("babcbc")]

    assert list(reasons(found).items()) == [("b", 3), ("c", 2), ("a", 1)]


def test_a_prompt_that_just_fits_is_not_too_long() -> None:
    assert prompt_too_long(64, "orm", 100, 33, 3) is None
    assert prompt_too_long(65, "orm", 100, 33, 3) == (
        "prompt too long for orm: more than 64 tokens; its context is 100, of which 36 are"
        " reserved for the response and the closing tokens"
    )
    assert prompt_too_long(65, "the policy", 96, 32, 0) == (
        "prompt too long for the policy: more than 64 tokens; its context is 96, of which 32 are"
        " reserved for the response"
    )


def test_a_prompt_with_its_response_that_just_fits_is_not_too_long() -> None:
    assert conversation_too_long(64, "policy", 64) is None
    assert conversation_too_long(65, "policy", 64) == (
        "too long for policy: prompt and response take more than 64 tokens"
    )
    assert conversation_too_long(61, "orm", 64, 3) is None
    assert conversation_too_long(62, "orm", 64, 3) == (
        "too long for orm: prompt and response take more than 61 tokens; its context is 64, of"
        " which 3 are reserved for the closing tokens"
    )
