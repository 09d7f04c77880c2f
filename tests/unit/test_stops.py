"""Which token completes a stop, against the slow way: every beginning decoded."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_steps import byte_level, sentence_piece

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.stop_texts import StopReader

CHATS = {"byte level": byte_level(), "sentence piece": sentence_piece()}
CJK = "\u8bf7\u7ee7\u7eed\u8bf4\u5427"
STOPS = ("\n", "\n\n", "5.", " is", ". ", "\u043a\u0438", "\U0001f642", "x", " ", CJK)


@pytest.mark.parametrize("name", CHATS)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_token_is_the_first_whose_text_holds_a_stop(name: str, data: st.DataObject) -> None:
    chat = CHATS[name]
    size = len(chat.tokenizer)
    words = [
        "Step 2: it is\n\n5. ",
        "\U0001f642 \u043a\u0438\n",
        f"\u8bf7{CJK}",
        "5",
        ".",
        "\n",
        " so is x",
    ]
    piece = st.one_of(
        st.sampled_from(words).map(chat.response_ids), st.tuples(st.integers(0, size - 1))
    )
    ids = [token for part in data.draw(st.lists(piece, max_size=12)) for token in part]
    stops = data.draw(st.lists(st.sampled_from(STOPS), min_size=1, max_size=3, unique=True))
    slow = (t for t in range(1, len(ids) + 1) if any(s in chat.text(ids[:t]) for s in stops))
    reader = StopReader(chat, stops)
    fast = (t for t in range(1, len(ids) + 1) if reader.completed(ids[:t]))
    assert next(fast, None) == next(slow, None)


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("stop", [CJK, "\U0001f680" * 5], ids=["CJK", "emoji"])
def test_a_stop_of_characters_of_several_tokens_is_detected(name: str, stop: str) -> None:
    chat = CHATS[name]
    ids = chat.response_ids(f"it is 5. {stop}")
    assert len(chat.response_ids(stop)) >= 3 * len(stop)
    reader = StopReader(chat, (stop,))
    assert [t for t in range(1, len(ids) + 1) if reader.completed(ids[:t])] == [len(ids)]


def test_only_tokens_that_may_complete_a_stop_are_decoded_in_their_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat = CHATS["byte level"]
    ids = chat.response_ids("First, add 2 and 3. " * 40 + "\n")
    decoded: list[int] = []
    text: Callable[..., str] = Chat.text

    def counted(self: Chat, token_ids: tuple[int, ...]) -> str:
        decoded.append(len(token_ids))
        return text(self, token_ids)

    monkeypatch.setattr(Chat, "text", counted)
    reader = StopReader(chat, ("\n",))
    found = [t for t in range(1, len(ids) + 1) if reader.completed(ids[:t])]
    assert found == [len(ids)]
    assert len(decoded) <= len(set(ids)) + 1 and max(decoded) < 12


@pytest.mark.parametrize("stops", [(), ("a", "")])
def test_a_stop_without_text_is_refused(stops: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="valid: one or more nonempty texts"):
        StopReader(CHATS["byte level"], stops)
