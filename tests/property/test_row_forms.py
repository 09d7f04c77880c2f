"""Every spelling of a conversation parses to the same messages, of a pair to the same pair."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.messages import ROLES, SYNONYMS, messages
from orchestrator.data.pairs import prompt_id
from orchestrator.data.rejects import BadRow
from orchestrator.data.row_forms import pairs_of, prompt_of, response_of, single_pair_of
from orchestrator.records import Message

# Text that may be stored, is no JSON list, and says something.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0["), min_size=1, max_size=8)
SPOKEN = TEXTS.filter(str.strip)
Conversation = tuple[Message, ...]


@st.composite
def conversations(draw: st.DrawFn, *, system: bool = True) -> Conversation:
    """Messages that end with the user's."""
    turns = draw(st.integers(0, 2))
    roles = ["user", "assistant"] * turns + ["user"]
    if system and draw(st.booleans()):
        roles.insert(0, "system")
    return tuple({"role": role, "content": draw(SPOKEN)} for role in roles)


@st.composite
def spelled(draw: st.DrawFn, said: Sequence[Message]) -> list[dict[str, Any]]:
    """One of the spellings of each message, by itself."""
    found: list[dict[str, Any]] = []
    for message in said:
        speaker = draw(st.sampled_from(SYNONYMS[message["role"]]))
        if draw(st.booleans()):
            found.append({"from": speaker, "value": message["content"], "weight": None})
        else:
            found.append({"role": speaker, "content": draw(contents(message["content"]))})
    return found


@st.composite
def contents(draw: st.DrawFn, text: str) -> Any:
    """Text, or its pieces as parts."""
    if draw(st.booleans()):
        return text
    cuts = [0, *sorted(draw(st.lists(st.integers(0, len(text)), max_size=2))), len(text)]
    return [{"type": "text", "text": text[a:b]} for a, b in pairwise(cuts)]


@given(st.data())
def test_every_spelling_of_a_prompt_is_the_same_prompt(data: st.DataObject) -> None:
    said = data.draw(conversations())
    name = data.draw(st.sampled_from(["prompt", "messages", "conversations", "context"]))
    row: dict[str, Any] = {name: data.draw(spelled(said))}
    if said[0]["role"] == "system" and data.draw(st.booleans()):
        row = {name: row[name][1:], "system": said[0]["content"]}
    assert prompt_of(row) == said
    assert prompt_id(prompt_of(row)) == prompt_id(said)
    assert messages("again", list(prompt_of(row))) == said


@given(st.data())
def test_a_response_is_the_same_wherever_it_stands(data: st.DataObject) -> None:
    said, answer = data.draw(conversations()), data.draw(SPOKEN)
    whole = [*said, {"role": "assistant", "content": answer}]
    rows: list[dict[str, object]] = [
        {"messages": data.draw(spelled(whole))},
        {"conversations": data.draw(spelled(whole))},
        {"prompt": data.draw(spelled(said)), "response": answer},
        {"prompt": data.draw(spelled(said)), "response": data.draw(spelled(whole[-1:]))},
        {"context": data.draw(spelled(said)), "response": data.draw(spelled(whole))},
    ]
    for row in rows:
        assert response_of(row) == (said, answer)


@given(st.data())
def test_a_pair_is_the_same_in_every_form(data: st.DataObject) -> None:
    said = data.draw(conversations(system=False))
    good, bad = data.draw(SPOKEN), data.draw(SPOKEN)
    sides = [[{"role": "assistant", "content": text}] for text in (good, bad)]
    asked = [message["content"] for message in said[::2]]
    replies = [message["content"] for message in said[1::2]]
    swap = data.draw(st.booleans())
    first, second = (bad, good) if swap else (good, bad)

    def whole(text: str) -> list[dict[str, Any]]:
        return data.draw(spelled([*said, {"role": "assistant", "content": text}]))

    rows: list[dict[str, Any]] = [
        {"chosen": whole(good), "rejected": whole(bad)},
        {"messages": whole(good), "chosen": whole(good), "rejected": whole(bad)},
        {"conversations": data.draw(spelled(said)), "chosen": data.draw(spelled(sides[0]))[0],
         "rejected": data.draw(spelled(sides[1]))[0]},
        {"prompt": json.dumps(asked), "response_a": json.dumps([*replies, first]),
         "response_b": json.dumps([*replies, second]), "winner_model_a": int(not swap),
         "winner_model_b": int(swap), "winner_tie": 0},
        {"conversation_a": whole(first), "conversation_b": whole(second),
         "winner": "model_b" if swap else "model_a"},
        {"context": data.draw(spelled(said)), "response1": first, "response2": second,
         "overall_preference": 1 if swap else -1},
        {"context": data.draw(spelled(said)), "completions": [
            {"rank": int(swap), "completion": data.draw(spelled([
                {"role": "assistant", "content": first}]))},
            {"rank": int(not swap), "completion": second}]},
    ]  # fmt: skip
    for row in rows:
        pair = single_pair_of(row)
        assert (pair.prompt, pair.chosen, pair.rejected) == (said, good, bad)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6))
def test_ranked_completions_give_each_pair_of_different_ranks_once(ranks: list[int]) -> None:
    listed = [{"rank": rank, "text": f"answer {i}"} for i, rank in enumerate(ranks)]
    found = list(pairs_of({"prompt": "x", "completions": listed}))
    pairs = [pair for pair in found if not isinstance(pair, BadRow)]
    rank_of = {f"answer {i}": rank for i, rank in enumerate(ranks)}
    assert len(found) == len(ranks) * (len(ranks) - 1) // 2
    assert all(rank_of[pair.chosen] < rank_of[pair.rejected] for pair in pairs)
    assert len({pair.name for pair in pairs}) == len(pairs)
    ties = sum(rank == other for i, rank in enumerate(ranks) for other in ranks[:i])
    assert len(found) - len(pairs) == ties


@given(st.text(max_size=6), TEXTS)
def test_another_role_is_refused(role: str, text: str) -> None:
    try:
        assert prompt_of({"prompt": [{"role": role, "content": text}]})
        assert ROLES[role] == "user" and text.strip()
    except BadRow:
        assert ROLES.get(role) != "user" or not text.strip()
