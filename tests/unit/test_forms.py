"""Rows in the forms of public data sets: prompts, responses and pairs, and every reason to refuse.

The rows have the fields and types of the sets that the test names; their texts are made up.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.data.messages import (
    NOT_BY_THE_ASSISTANT,
    NOT_TEXT_PART,
    NOT_TO_THE_USER,
    TURNS_ALONE,
    UNKNOWN_ROLE,
)
from orchestrator.data.pairs import prompt_id, read_pairs
from orchestrator.data.rejects import BadRow
from orchestrator.data.row_forms import (
    HISTORIES_DIFFER,
    INSTRUCTION,
    NO_PAIR,
    NOT_RANKED,
    SEVERAL_PAIRS,
    TWO_SYSTEMS,
    RowPair,
    form_of,
    pairs_of,
    prompt_of,
    response_of,
    single_pair_of,
)
from orchestrator.data.verdicts import NO_ORDER, NO_WINNER, REVERSED, TIE

QUESTION, GOOD, BAD = "which kettle leaks ?", "the red one", "no idea"


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def shared(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


USER, RIGHT, WRONG = said("user", QUESTION), said("assistant", GOOD), said("assistant", BAD)
SYSTEM = said("system", "be brief")
PAIR = RowPair("", (USER,), GOOD, BAD)
ARENA = {"id": 30192, "model_a": "gpt-4", "model_b": "vicuna", "prompt": json.dumps([QUESTION])}
HELPSTEER = {"prompt": QUESTION, "response_1": BAD, "response_2": GOOD, "preference_statement": ""}
PARTS = [{"type": "text", "text": "which "}, {"type": "text", "text": "kettle leaks ?"}]

PUBLIC: dict[str, dict[str, Any]] = {
    "HuggingFaceH4/ultrafeedback_binarized": {
        "prompt": QUESTION,
        "prompt_id": "f00",
        "chosen": [USER, RIGHT],
        "rejected": [USER, WRONG],
        "messages": [USER, RIGHT],
        "score_chosen": 8.0,
        "score_rejected": 2.5,
    },
    "Skywork-Reward-Preference": {
        "chosen": [USER, RIGHT],
        "rejected": [USER, WRONG],
        "source": "magpie",
    },
    "argilla/ultrafeedback-binarized-preferences": {
        "prompt": QUESTION,
        "chosen": GOOD,
        "chosen-rating": 5.0,
        "rejected": BAD,
        "rejected-rating": 1.0,
    },
    "LLaMA-Factory, ranking, sharegpt": {
        "conversations": [shared("human", QUESTION)],
        "chosen": shared("gpt", GOOD),
        "rejected": shared("gpt", BAD),
    },
    "LLaMA-Factory, ranking, openai": {"messages": [USER], "chosen": RIGHT, "rejected": WRONG},
    "NVIDIA NeMo RL": {
        "context": [USER],
        "completions": [{"rank": 0, "completion": [RIGHT]}, {"rank": 1, "completion": [WRONG]}],
    },
    "openbmb/UltraFeedback": {
        "source": "evol",
        "instruction": QUESTION,
        "completions": [
            {"model": "a", "response": BAD, "overall_score": 3.0, "critique": "thin"},
            {"model": "b", "response": GOOD, "overall_score": 8.5, "critique": "fine"},
        ],
    },
    "lmsys/lmsys-arena-human-preference-55k": {
        **ARENA,
        "response_a": json.dumps([GOOD]),
        "response_b": json.dumps([BAD]),
        "winner_model_a": 1,
        "winner_model_b": 0,
        "winner_tie": 0,
    },
    "the same with lists for JSON": {
        **ARENA,
        "prompt": [QUESTION],
        "response_a": [BAD],
        "response_b": [GOOD],
        "winner_model_a": 0,
        "winner_model_b": 1,
        "winner_tie": 0,
    },
    "lmsys/chatbot_arena_conversations": {
        "question_id": "58210",
        "model_a": "alpaca",
        "winner": "model_b",
        "conversation_a": [USER, WRONG],
        "conversation_b": [USER, RIGHT],
    },
    "lmarena-ai/arena-human-preference-140k": {
        "winner": "model_a",
        "conversation_a": [
            said("user", [{"type": "text", "text": QUESTION, "image": None, "mimeType": None}]),
            said("assistant", [{"type": "text", "text": GOOD, "image": None, "mimeType": None}]),
        ],
        "conversation_b": [USER, WRONG],
    },
    "nvidia/HelpSteer2, preference": {**HELPSTEER, "preference_strength": 2},
    "nvidia/HelpSteer3": {
        "domain": "general",
        "context": [USER],
        "response1": GOOD,
        "response2": BAD,
        "overall_preference": -3,
    },
    "stanfordnlp/SHP": {
        "history": QUESTION,
        "human_ref_A": BAD,
        "human_ref_B": GOOD,
        "labels": 0,
        "score_A": 4,
        "score_B": 12,
    },
}


@pytest.mark.parametrize("row", PUBLIC.values(), ids=PUBLIC)
def test_a_pair_of_each_public_form_is_the_same_pair(row: dict[str, Any]) -> None:
    pair = single_pair_of(row)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((USER,), GOOD, BAD)
    assert form_of(row) == ("ranked" if "completions" in row else "pair")


@pytest.mark.parametrize("row", PUBLIC.values(), ids=PUBLIC)
def test_a_pair_from_parquet_is_the_pair_from_json(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")

    from_json, rejects = read_pairs(tmp_path / "x.jsonl")

    assert rejects == [] and len(from_json) == 1
    assert from_json == read_pairs(tmp_path / "x.parquet")[0]
    assert from_json[0].prompt.prompt_id == prompt_id([USER])


HISTORY = [SYSTEM, USER, RIGHT, said("user", "why ?")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": HISTORY},
        {"messages": HISTORY},
        {"context": HISTORY},
        {"conversations": HISTORY},
        {"conversation_id": 7, "messages": HISTORY[1:], "system": " be brief"},
        {
            "conversations": [
                shared("system", "be brief"),
                shared("human", QUESTION),
                shared("gpt", GOOD),
                shared("human", "why ?"),
            ]
        },
        {
            "system": "be brief",
            "conversations": [
                shared("user", QUESTION),
                shared("model", GOOD),
                shared("human", "why ?"),
            ],
        },
        {
            "prompt": [
                SYSTEM,
                said("human", PARTS),
                said("bot", GOOD),
                said("user", [{"type": "text", "text": "why ?"}]),
            ]
        },
    ],
)
def test_a_prompt_is_the_same_in_every_spelling(row: dict[str, Any]) -> None:
    found = [(message["role"], message["content"].strip()) for message in prompt_of(row)]
    assert found == [(message["role"], message["content"]) for message in HISTORY]


def test_an_empty_system_field_is_none() -> None:
    assert prompt_of({"prompt": QUESTION, "system": ""}) == (USER,)
    assert prompt_of({"prompt": QUESTION, "system": None}) == (USER,)
    assert prompt_of({"prompt": [SYSTEM, USER], "system": "be brief"}) == (SYSTEM, USER)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": QUESTION, "response": GOOD, "helpfulness": 4},  # nvidia/HelpSteer2
        {"messages": [USER, RIGHT]},
        {"prompt": "an excerpt", "prompt_id": "f00", "messages": [USER, RIGHT]},  # ultrachat_200k
        {"conversations": [shared("human", QUESTION), shared("gpt", GOOD)]},  # ShareGPT
        {"messages": [USER], "response": RIGHT},
        {"messages": [USER], "response": [USER, RIGHT]},
        {"prompt": json.dumps([QUESTION]), "response": json.dumps([GOOD])},
    ],
)
def test_a_response_is_a_field_or_the_end_of_a_conversation(row: dict[str, Any]) -> None:
    assert response_of(row) == ((USER,), GOOD)
    assert form_of(row) == "response"


def test_turns_and_the_answers_to_them_are_one_conversation() -> None:
    turns = json.dumps([QUESTION, "why ?"])
    row = {
        "prompt": turns,
        "response_a": json.dumps([GOOD, "it drips"]),
        "response_b": json.dumps([GOOD, "magic"]),
        "winner_model_a": 0,
        "winner_model_b": 1,
        "winner_tie": 0,
    }
    pair = single_pair_of(row)
    assert pair == RowPair("", (USER, RIGHT, said("user", "why ?")), "magic", "it drips")
    assert refusal(single_pair_of, {**row, "response_b": json.dumps([BAD, "magic"])}) == (
        HISTORIES_DIFFER
    )
    assert refusal(single_pair_of, {**row, "response_b": json.dumps(["magic"])}) == TURNS_ALONE
    assert refusal(single_pair_of, {**row, "response_b": json.dumps([GOOD, None])}) == (
        "empty response: response_b"
    )
    assert refusal(prompt_of, row) == TURNS_ALONE


@pytest.mark.parametrize(
    "text", ["[1, 2] is a list", '["a", 1]', "[]", "[" * 9_000, '{"a": ["b"]}']
)
def test_other_text_that_begins_like_json_is_text(text: str) -> None:
    assert prompt_of({"prompt": text}) == (said("user", text),)


def refusal(read: Any, row: dict[str, Any]) -> str:
    with pytest.raises(BadRow) as error:
        read(row)
    return str(error.value)


ANSWERED = {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**ANSWERED, "score_chosen": 7.0, "score_rejected": 7.0}, TIE),
        ({**ANSWERED, "score_chosen": 2, "score_rejected": 7}, REVERSED),
        ({**ANSWERED, "chosen_score": 2, "rejected_score": 7}, REVERSED),
        ({**ANSWERED, "rating_chosen": 2, "rating_rejected": 2}, TIE),
        ({**ANSWERED, "winner_tie": 1}, TIE),
        ({**ANSWERED, "score_chosen": 2}, "missing field: score_rejected"),
        (
            {**ANSWERED, "score_chosen": "8", "score_rejected": 7},
            "wrong type: score_chosen is not a number",
        ),
        (
            {**ANSWERED, "score_chosen": True, "score_rejected": 7},
            "wrong type: score_chosen is not a number",
        ),
        (
            {**ANSWERED, "score_chosen": float("nan"), "score_rejected": 7},
            "wrong type: score_chosen is not a number",
        ),
        (
            {**ARENA, "response_a": GOOD, "response_b": BAD, "winner_tie": 1},
            TIE,
        ),
        ({**ARENA, "response_a": GOOD, "response_b": BAD}, NO_WINNER),
        (
            {**ARENA, "response_a": GOOD, "response_b": BAD, "winner_model_a": 1,
             "winner_model_b": 1},
            NO_WINNER,
        ),
        ({"conversation_a": [USER, RIGHT], "conversation_b": [USER, WRONG], "winner": "b"},
         NO_WINNER),
        ({"conversation_a": [USER, RIGHT], "conversation_b": [USER, WRONG],
          "winner": "tie (bothbad)"}, TIE),
        ({"conversation_a": [USER, RIGHT], "conversation_b": [SYSTEM, USER, WRONG],
          "winner": "model_a"}, HISTORIES_DIFFER),
        ({**HELPSTEER, "preference_strength": 0}, TIE),
        ({**HELPSTEER}, "missing field: preference_strength"),
        ({"history": QUESTION, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 2},
         "labels is neither 0 nor 1"),
        ({"context": [USER], "completions": [GOOD, BAD]}, NOT_RANKED),
        ({"context": [USER], "completions": [{"rank": 0, "completion": [RIGHT]}]}, NOT_RANKED),
        ({"context": [USER], "completions": [{"rank": 0}, {"rank": 1}]}, NOT_RANKED),
        ({"context": [USER], "completions": {"rank": 0}}, NOT_RANKED),
        ({"context": [USER], "completions": [{"text": GOOD}, {"text": BAD}]}, NO_ORDER),
        (
            {"context": [USER], "completions": [{"text": GOOD, "rank": 0}, {"text": BAD,
                                                                            "score": 1}]},
            NO_ORDER,
        ),
        (
            {"context": [USER], "completions": [{"text": GOOD, "rank": "best"},
                                                {"text": BAD, "rank": "worst"}]},
            "wrong type: completions rank is not a number",
        ),
        ({"completions": [{"text": GOOD, "rank": 0}, {"text": BAD, "rank": 1}]},
         "missing field: prompt"),
        ({"instruction": QUESTION, "input": "a kettle", "chosen": GOOD, "rejected": BAD},
         INSTRUCTION),
        ({"prompt": [SYSTEM, USER], "system": "be long", "chosen": GOOD, "rejected": BAD},
         TWO_SYSTEMS),
        ({"messages": [USER, WRONG], "chosen": [USER, RIGHT], "rejected": [USER, WRONG]},
         HISTORIES_DIFFER),
        ({"messages": [USER, RIGHT], "chosen": RIGHT, "rejected": WRONG}, NOT_TO_THE_USER),
        ({"conversations": [shared("human", QUESTION)], "chosen": shared("human", GOOD),
          "rejected": shared("gpt", BAD)}, NOT_BY_THE_ASSISTANT.format("chosen")),
        ({"conversations": [shared("observation", QUESTION)], "chosen": GOOD, "rejected": BAD},
         UNKNOWN_ROLE),
        ({"conversations": [{"from": "human"}], "chosen": GOOD, "rejected": BAD},
         "missing field: value"),
        ({**ANSWERED, "prompt": [said("user", [{"type": "image_url", "image_url": "x"}])]},
         NOT_TEXT_PART),
        ({**ANSWERED, "prompt": [said("user", [QUESTION])]}, NOT_TEXT_PART),
        ({**ANSWERED, "prompt": [said("user", [{"type": "text", "text": 7}])]},
         "wrong type: prompt is not text"),
        ({**ANSWERED, "prompt": [said("user", [])]}, "empty prompt"),
        ({**ANSWERED, "prompt": json.dumps([QUESTION, "why ?"])}, TURNS_ALONE),
        ({"prompt": QUESTION}, NO_PAIR),
    ],
)  # fmt: skip
def test_what_is_no_pair_has_its_reason(row: dict[str, Any], reason: str) -> None:
    assert refusal(single_pair_of, row) == reason


def ranked(*ranks: float) -> dict[str, Any]:
    listed = [{"rank": rank, "completion": [said("assistant", f"answer {i}")]}
              for i, rank in enumerate(ranks, start=1)]  # fmt: skip
    return {"context": [USER], "completions": listed}


def test_every_two_completions_make_a_pair_with_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("\n".join(map(json.dumps, [ranked(2, 1, 3), PUBLIC["NVIDIA NeMo RL"]])))

    pairs, rejects = read_pairs(path)

    assert [(p.pair_id, p.chosen, p.rejected) for p in pairs] == [
        ("file-1:2-1", "answer 2", "answer 1"),
        ("file-1:1-3", "answer 1", "answer 3"),
        ("file-1:2-3", "answer 2", "answer 3"),
        ("file-2:1-2", GOOD, BAD),
    ]
    assert rejects == []
    assert len({pair.prompt.prompt_id for pair in pairs}) == 1


def test_what_two_completions_do_not_make_is_a_reject_and_the_others_stand(tmp_path: Path) -> None:
    row = ranked(1, 2, 2)
    row["completions"].append({"rank": 4, "completion": [said("assistant", "answer 1 ")]})
    path = tmp_path / "file.jsonl"
    path.write_text("\n".join(map(json.dumps, [row, ranked(1, 2), ranked(5, 5)])))

    pairs, rejects = read_pairs(path)

    assert [p.pair_id for p in pairs] == [f"file-1:{name}" for name in ("1-2", "1-3", "2-4", "3-4")]
    assert [(r.row, r.reason) for r in rejects] == [
        (1, "chosen and rejected are equal"),
        (1, TIE),
        (2, "duplicate row"),
        (3, TIE),
    ]


def test_a_reader_of_one_pair_refuses_a_row_of_several() -> None:
    assert refusal(single_pair_of, ranked(1, 2, 3)) == SEVERAL_PAIRS
    assert len(list(pairs_of(ranked(1, 2, 3)))) == 3


def test_a_row_without_any_of_the_fields_has_no_form() -> None:
    assert form_of({"prompt": QUESTION}) is None
    assert form_of({"messages": [USER], "chosen": GOOD, "rejected": None}) is None
