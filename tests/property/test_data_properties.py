"""Whatever a file holds, reading it never raises and loses no row; splits and ids are sound."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.data.files import BadFile
from orchestrator.data.final_answers import extract_answer
from orchestrator.data.math_answers import verdict
from orchestrator.data.pairs import prompt_id, read_pairs
from orchestrator.data.questions import read_questions
from orchestrator.data.rejects import BadRow, write_rejects
from orchestrator.data.row_forms import form_of, prompt_of, response_of, single_pair_of
from orchestrator.data.rows import read_rows
from orchestrator.data.splits import split_pairs
from orchestrator.data.transcripts import read_hh
from orchestrator.records import PreferencePair, Prompt, Reject

FIELDS = ("prompt", "chosen", "rejected", "question", "answer", "ground_truth", "role", "content",
          "messages", "conversations", "from", "value", "completions", "rank", "score", "text",
          "response", "system", "winner_tie", "response_a", "response_b", "problem",
          "solution")  # fmt: skip
# Few different texts, so that equal responses, duplicates and whole transcripts do come up.
texts = st.one_of(
    st.sampled_from(["", " ", "a", "b", "#### 4", "Human: a", "\n\nHuman: a\n\nAssistant: b"]),
    st.text(st.characters(codec=None), max_size=8),  # lone surrogates and NUL are among them
)
roles = st.sampled_from(["user", "assistant", "system", "tool"])
chats = st.lists(st.fixed_dictionaries({"role": roles, "content": texts}), max_size=3)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, chats)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=6,
)
rows = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), values),
    st.fixed_dictionaries({"prompt": texts | chats, "chosen": texts, "rejected": texts}),
    st.fixed_dictionaries({"question": texts, "answer": texts}),
    values,
)
json_lines = rows.map(lambda row: json.dumps(row).encode())
lines = st.lists(json_lines | st.binary(max_size=40), max_size=8)


unhurried = settings(deadline=None)  # disks differ in speed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def is_array(path: Path, content: bytes) -> bool:
    """Whether the file is refused as a whole: it begins as an array, or as indented JSON."""
    try:
        list(read_rows(path))
    except BadFile:
        assert content.decode("utf-8-sig", errors="replace").lstrip().startswith(("[", "{"))
        return True
    return False


@unhurried
@given(content=lines.map(b"\n".join) | st.binary(max_size=300))
@example(content=b"[")
def test_every_row_is_read_or_rejected(folder: Path, content: bytes) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    if is_array(path, content):
        return
    expected = [n for n, line in enumerate(content.split(b"\n"), start=1) if line.strip()]

    assert [r.row if isinstance(r, Reject) else r[0] for r in read_rows(path)] == expected
    demonstrations, bad = read_questions(path)
    assert len(demonstrations) + len(bad) == len(expected)
    for read in (read_pairs, read_hh):
        pairs, rejects = read(path)
        # Ranked completions may be several pairs, and a reject for each two that are none.
        numbers = [int(pair.pair_id.split("-")[1].split(":")[0]) for pair in pairs]
        assert {*numbers, *(r.row for r in rejects)} == set(expected)
        write_rejects(folder / "rejects.parquet", rejects)
        table = pq.read_table(folder / "rejects.parquet")
        assert table["reason"].to_pylist() == [r.reason for r in rejects]


@given(values)
def test_a_row_of_any_content_is_read_or_refused(value: Any) -> None:
    for row in (value if isinstance(value, dict) else {"prompt": value, "response": value},):
        for read in (prompt_of, response_of, single_pair_of):
            with contextlib.suppress(BadRow):
                read(row)
        assert form_of(row) in (None, "response", "pair", "ranked")


@unhurried
@given(content=lines.map(b"\n".join))
def test_what_is_read_can_be_trained_on(folder: Path, content: bytes) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    if is_array(path, content):
        return
    for read in (read_pairs, read_hh):
        pairs, _ = read(path)
        for pair in pairs:
            assert pair.prompt.messages[-1]["role"] == "user"
            assert pair.chosen.strip() and pair.rejected.strip()
            assert pair.chosen.strip() != pair.rejected.strip()
            said = [m["content"] for m in pair.prompt.messages]
            "".join([*said, pair.chosen, pair.rejected]).encode()  # raises on a lone surrogate
        assert len({pair.pair_id for pair in pairs}) == len(pairs)


ROUNDING = 1e-9  # of shares in float64
prompts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), unique=True, max_size=6)


@unhurried
@given(before=prompts, after=prompts)
def test_ids_of_a_row_do_not_depend_on_the_rows_after_it(
    folder: Path, before: list[str], after: list[str]
) -> None:
    path = folder / "rows.jsonl"

    def pairs_of(said: list[str]) -> list[PreferencePair]:
        written = [{"prompt": text, "chosen": "a", "rejected": "b"} for text in said]
        path.write_text("\n".join(map(json.dumps, written)))
        return read_pairs(path)[0]

    alone = pairs_of(before)
    assert pairs_of(before) == alone
    assert pairs_of(before + after)[: len(alone)] == alone


messages = st.lists(
    st.fixed_dictionaries({"role": roles, "content": st.sampled_from(["a", " a", "b", "a b"])}),
    max_size=3,
)


@given(first=messages, second=messages)
def test_prompt_ids_are_equal_where_roles_and_contents_are(
    first: list[dict[str, str]], second: list[dict[str, str]]
) -> None:
    def plain(chat: list[dict[str, str]]) -> list[tuple[str, str]]:
        return [(message["role"], message["content"].strip()) for message in chat]

    assert (prompt_id(first) == prompt_id(second)) == (plain(first) == plain(second))


@given(
    owners=st.lists(st.integers(0, 40), max_size=80),
    weights=st.lists(st.integers(1, 10), min_size=1, max_size=4),
    test_prompts=st.integers(0, 10),
    seed=st.integers(0, 2**32),
)
def test_splits_are_disjoint_by_prompt_and_complete(
    owners: list[int], weights: list[int], test_prompts: int, seed: int
) -> None:
    pairs = [
        PreferencePair(str(i), Prompt(str(owner), ()), "a", "b") for i, owner in enumerate(owners)
    ]
    names = ("policy", "orm", "reference")[: len(weights) - 1]  # the last weight is the PRM's
    shares = {name: w / sum(weights) for name, w in zip(names, weights, strict=False)}
    try:
        splits = split_pairs(pairs, shares, test_prompts, seed)
    except ValueError:
        # Refused only where a split can be empty: its share is a prompt or less.
        left = len(set(owners)) - test_prompts
        assert left * min(weights) / sum(weights) <= 1 + ROUNDING
        return

    held = {name: {pair.prompt.prompt_id for pair in split} for name, split in splits.items()}
    in_splits = [pair.pair_id for split in splits.values() for pair in split]
    assert sorted(in_splits) == sorted(pair.pair_id for pair in pairs)
    assert sum(map(len, held.values())) == len(set(owners))
    assert len(held["test"]) == test_prompts
    for name, share in shares.items():
        assert abs(len(held[name]) - share * (len(set(owners)) - test_prompts)) <= 1 + ROUNDING
    again = split_pairs(pairs[::-1], shares, test_prompts, seed)
    assert {n: sorted(p.pair_id for p in s) for n, s in again.items()} == {
        n: sorted(p.pair_id for p in s) for n, s in splits.items()
    }


numbers = st.integers(-(10**9), 10**9)


@given(st.text())
def test_extraction_takes_any_text_and_its_result_stays_itself(text: str) -> None:
    answer = extract_answer(text)

    if answer is not None:
        assert extract_answer(answer) == answer


@unhurried
@given(number=numbers, decimals=st.integers(0, 3), before=numbers)
def test_a_number_is_found_however_it_is_written(number: int, decimals: int, before: int) -> None:
    zeros = "." + "0" * decimals if decimals else ""
    for written in (f"{number}{zeros}", f"{number:,}{zeros}", f"$ {number:,}", f"{number}%"):
        for mark in ("#### ", "so\nA: ", "hence the answer is ", "that makes "):
            assert extract_answer(f"{before} eggs\n{mark}{written}") == str(number)
            assert verdict(f"{before} eggs\n{mark}{written}", f"{number:,}") == "right"
            assert verdict(f"{before} eggs\n{mark}{written}", str(number + 1)) != "right"


@given(numerator=numbers, denominator=st.integers(1, 999), factor=st.integers(1, 99))
def test_equal_fractions_are_equal_answers(numerator: int, denominator: int, factor: int) -> None:
    text = f"A: {numerator * factor}/{denominator * factor}"

    assert verdict(text, f"{numerator}/{denominator}") == "right"
    assert verdict(text, f"{numerator}/{denominator + 1}") == "wrong" or numerator == 0


@unhurried
@given(values)
def test_a_reject_shows_any_row(folder: Path, value: Any) -> None:
    path = folder / "one.jsonl"
    path.write_text(json.dumps({"chosen": value}))
    (reject,) = read_pairs(path)[1]

    assert 0 < len(reject.content) <= 500
    reject.content.encode()
