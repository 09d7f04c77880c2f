"""Rows as a scorer is asked: prompts and pairs, cuts, and every reason to refuse a row."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.reward_kinds import MAKERS, QUESTION, STEPS
from support.reward_oracles import USER
from transformers import AutoTokenizer

from orchestrator.checkpoints.checkpoint import context_of
from orchestrator.choices import Position
from orchestrator.conversations.chat import load_chat
from orchestrator.data.prefixes import Prefixes
from orchestrator.data.rejects import BadRow
from orchestrator.data.row_forms import RowForm
from orchestrator.scorers.row_reader import NO_TOKENS, REFUSED, TOO_LONG, RowReader
from orchestrator.scorers.spec import ScorerSpec

CONTEXT = 256  # of the tiny models


def reader(
    checkpoint: str,
    prefixes: str = "whole",
    rows: RowForm = "response",
    position: Position = "closed",
    **spec: Any,
) -> RowReader:
    named = Prefixes.parse(prefixes)
    return RowReader(ScorerSpec(checkpoint, **spec), position, rows, named, 0, "file")


def reason(read: RowReader, row: dict[str, Any]) -> str:
    with pytest.raises(BadRow) as error:
        read.read(7, row)
    return str(error.value)


def test_a_prompt_is_text_or_messages_and_goes_through_the_template(byte_reward: str) -> None:
    chat = load_chat(byte_reward)
    read = reader(byte_reward)
    asked = [read.read(1, {"prompt": p, "response": "yes ."}) for p in (QUESTION, USER)]
    assert asked[0] == asked[1]
    assert asked[0].prompt_ids == chat.prompt_ids(USER)
    assert asked[0].responses == (chat.response_ids("yes ."),)
    assert asked[0].cuts == ([len(asked[0].responses[0])],)
    assert asked[0].tokens == len(asked[0].prompt_ids) + len(asked[0].responses[0])
    history = [*USER, {"role": "assistant", "content": "5"}, {"role": "user", "content": "why ?"}]
    long = read.read(1, {"prompt": history, "response": "yes ."})
    assert long.prompt_ids == chat.prompt_ids(history)


def test_a_pair_has_both_sides_and_one_draw_of_the_longer_response(word_reward: str) -> None:
    row = {"prompt": "order 3 .", "chosen": "thank you for writing .", "rejected": "no ."}
    read = reader(word_reward, "sst", rows="pair")
    for number in range(1, 30):
        asked = read.read(number, row)
        chosen, rejected = asked.cuts
        longest, shorter = map(len, asked.responses)
        assert sorted({min(t, shorter) for t in chosen}) == rejected
        drawn = Prefixes("sst", (5,)).cuts(longest, longest, list, 0, f"file-{number}")
        assert chosen == drawn


def test_steps_end_at_the_delimiter_of_the_option_or_of_the_models_own(
    byte_reward: str, tmp_path: Path
) -> None:
    row = {"prompt": QUESTION, "response": "".join(STEPS)}
    chat = load_chat(byte_reward)
    ids = chat.response_ids(row["response"])
    for delimiter, pieces in ((None, STEPS), (" is", ("a is", " b is", " c"))):
        text = "".join(pieces)
        read = reader(byte_reward, "steps", step_delimiter=delimiter)
        asked = read.read(1, {**row, "response": text})
        found = [chat.text(asked.responses[0][:t]) for t in asked.cuts[0]]
        ends = ["".join(pieces[: i + 1]) for i in range(len(pieces))]
        assert [text.rstrip("\n") for text in found] == [text.rstrip("\n") for text in ends]
    assert reader(byte_reward, "steps").read(1, row).responses == (ids,)
    # TRL's separator ends its steps, and here it is its own tag.
    trl = reader(MAKERS["token_classes"](tmp_path / "trl"), "steps")
    asked = trl.read(1, {**row, "response": "a\nb\nc"})
    assert [len(cuts) for cuts in asked.cuts] == [3]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "x"}, "missing field: response"),
        ({"response": "x"}, "missing field: prompt"),
        ({"prompt": None, "response": "x"}, "missing field: prompt"),
        ({"prompt": "x", "response": 5}, "wrong type: response is not text"),
        ({"prompt": 5, "response": "x"}, "wrong type: prompt is not a list of messages"),
        ({"prompt": [], "response": "x"}, "empty prompt"),
        ({"prompt": " ", "response": "x"}, "empty prompt"),
        ({"prompt": "x", "response": " \n"}, "empty response: response"),
        ({"prompt": "x", "response": "a\0b"}, "NUL character: response"),
        ({"prompt": "x", "response": "\ud800"}, "invalid unicode: response"),
    ],
)
def test_a_row_that_says_nothing_is_refused(
    row: dict[str, Any], expected: str, word_reward: str
) -> None:
    assert reason(reader(word_reward), row) == expected


def test_a_pair_is_refused_for_either_side(word_reward: str) -> None:
    read = reader(word_reward, rows="pair")
    good = {"prompt": "x", "chosen": "a", "rejected": "b"}
    assert reason(read, {**good, "rejected": ""}) == "empty response: rejected"
    assert reason(read, {**good, "chosen": None}) == "missing field: chosen"
    assert reason(read, {**good, "rejected": "a " * 300}) == TOO_LONG.format(CONTEXT)


@pytest.mark.parametrize("position", ["open", "closed"])
def test_the_context_holds_prompt_response_and_closing_and_not_a_token_more(
    position: Position, word_reward: str
) -> None:
    chat, read = load_chat(word_reward), reader(word_reward, position=position)
    assert context_of(word_reward) == CONTEXT
    used = len(chat.prompt_ids([{"role": "user", "content": "order"}]))
    room = CONTEXT - used - (len(chat.closing_ids) if position == "closed" else 0)
    fits = {"prompt": "order", "response": "the " * room}
    assert len(read.read(1, fits).responses[0]) == room
    assert reason(read, {**fits, "response": "the " * (room + 1)}) == TOO_LONG.format(CONTEXT)


def test_a_log_ratio_takes_what_its_base_takes_and_closes_with_nothing(
    word_policy: str, tmp_path: Path
) -> None:
    read = reader(word_policy, base=word_policy)
    used = len(load_chat(word_policy).prompt_ids([{"role": "user", "content": "order"}]))
    fits = {"prompt": "order", "response": "the " * (CONTEXT - used)}
    assert read.read(1, fits).tokens == CONTEXT
    assert reason(read, {**fits, "response": fits["response"] + "the"}) == TOO_LONG.format(CONTEXT)


def test_step_tags_count_as_tokens_of_the_context(tmp_path: Path) -> None:
    checkpoint = MAKERS["process_head"](tmp_path / "tags")
    read, chat = reader(checkpoint), load_chat(checkpoint)
    step = "5\n\n"
    size = len(chat.response_ids(step))
    used = len(chat.prompt_ids(USER))
    # n complete steps are read with n tags, and one tag stands behind the whole.
    steps = (CONTEXT - used - 1) // (size + 1)
    assert read.read(1, {"prompt": QUESTION, "response": step * steps})
    over = {"prompt": QUESTION, "response": step * (steps + 1)}
    assert reason(read, over) == TOO_LONG.format(CONTEXT)


def test_what_the_template_or_the_tokenizer_refuses_is_a_reject(
    word_reward: str, tmp_path: Path
) -> None:
    refusing = shutil.copytree(word_reward, tmp_path / "refusing")
    tokenizer = AutoTokenizer.from_pretrained(word_reward)
    tokenizer.chat_template = (
        "{% if messages[0].content == 'order' %}{{ raise_exception('no orders') }}{% endif %}"
        f"{tokenizer.chat_template}"
    )
    tokenizer.save_pretrained(refusing)
    assert reason(reader(str(refusing)), {"prompt": "order", "response": "y"}) == REFUSED.format(
        "the chat template refuses the conversation: no orders"
    )
    bert = reader(MAKERS["bert"](tmp_path / "bert"))
    # BERT's tokenizer drops control characters.
    assert reason(bert, {"prompt": "what", "response": "\u200b\ufffd"}) == (
        NO_TOKENS.format("response")
    )


def test_a_reader_goes_to_another_process_as_it_is(word_reward: str) -> None:
    read = reader(word_reward, "tlt")
    row = {"prompt": "order", "response": "thank you ."}
    assert pickle.loads(pickle.dumps(read)).read(3, row) == read.read(3, row)
