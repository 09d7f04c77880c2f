"""HH-RLHF transcripts become the prompt and the two last assistant turns."""

import json
import os
from pathlib import Path

import pytest

from orchestrator.data.messages import NOT_A_MESSAGE
from orchestrator.data.rejects import BadRow, reasons
from orchestrator.data.row_forms import NO_PAIR
from orchestrator.data.transcripts import parse_raw, read_hh, transcript

SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
HH = SHARED / "hh_rlhf"
needs_data = pytest.mark.skipif(not HH.is_dir(), reason=f"no HH-RLHF sample in {HH}")

HISTORY = "\n\nHuman: hi\n\nAssistant: hello,\n\nwhat is it?\n\nHuman: Human: is a word"


def test_the_shared_history_is_the_prompt() -> None:
    row = {
        "chosen": f"{HISTORY}\n\nAssistant: it is. ",
        "rejected": f"{HISTORY}\n\nAssistant:no\nAssistant: no",
    }

    assert parse_raw(row) == (
        (
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello,\n\nwhat is it?"},
            {"role": "user", "content": "Human: is a word"},
        ),
        "it is.",
        "no\nAssistant: no",
    )


def test_the_first_turn_may_begin_the_text() -> None:
    assert transcript("chosen", "Human: a\n\nAssistant: b") == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]


ANSWERED = f"{HISTORY}\n\nAssistant: yes"


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (ANSWERED, f"\n\nHuman: bye{ANSWERED}", "the histories of chosen and rejected differ"),
        (f"{ANSWERED}\n\nAssistant: and", ANSWERED, "the histories of chosen and rejected differ"),
        (HISTORY, ANSWERED, "not a transcript: chosen does not end with an Assistant turn"),
        (
            ANSWERED,
            "no",
            "not a transcript: rejected does not begin with a Human or Assistant turn",
        ),
        (
            ANSWERED,
            f"so: {ANSWERED}",
            "not a transcript: rejected does not begin with a Human or Assistant turn",
        ),
        ("\n\nAssistant: a", "\n\nAssistant: b", "empty prompt"),
        ("\n\nHuman:\n\nAssistant: a", "\n\nHuman:\n\nAssistant: b", "empty prompt"),
        (f"{HISTORY}\n\nAssistant:", ANSWERED, "empty response: chosen"),
        (
            "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c",
            "\n\nHuman: a\n\nAssistant: b\n\nAssistant: d",
            "conversation does not end with the user",
        ),
    ],
)
def test_transcripts_that_make_no_pair_are_refused(chosen: str, rejected: str, reason: str) -> None:
    with pytest.raises(BadRow) as refused:
        parse_raw({"chosen": chosen, "rejected": rejected})

    assert str(refused.value) == reason


def test_raw_and_parsed_rows_may_stand_in_one_file(tmp_path: Path) -> None:
    rows = [
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
        {"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "d"},
        {"chosen": "\n\nHuman: a\n\nAssistant: b"},
        {"chosen": ["b"], "rejected": ["c"]},
        {"chosen": 7, "rejected": "c"},
        {},
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    pairs, rejects = read_hh(path)

    assert [(p.pair_id, p.chosen, p.rejected) for p in pairs] == [
        ("mixed-1", "b", "c"),
        ("mixed-2", "b", "d"),
    ]
    assert pairs[0].prompt == pairs[1].prompt
    assert [(r.row, r.reason) for r in rejects] == [
        (3, "missing field: rejected"),
        (
            4,
            NOT_A_MESSAGE.format("chosen"),
        ),
        (5, "wrong type: chosen is not text"),
        (6, NO_PAIR),
    ]


@needs_data
def test_the_raw_sample_gives_what_the_parsed_one_holds() -> None:
    raw, raw_rejects = read_hh(HH / "harmless_base_raw.jsonl")
    parsed, parsed_rejects = read_hh(HH / "harmless_base_pairs.jsonl")

    assert [(p.prompt, p.chosen, p.rejected) for p in raw] == [
        (p.prompt, p.chosen, p.rejected) for p in parsed
    ]
    # Of 1,619 raw rows 1,614 parse, as many as the parsed file has; two of these say nothing.
    assert len(parsed) == 1_612
    assert reasons(parsed_rejects) == {"empty response: chosen": 2}
    assert reasons(raw_rejects) == {
        "the histories of chosen and rejected differ": 5,
        "empty response: chosen": 2,
    }
