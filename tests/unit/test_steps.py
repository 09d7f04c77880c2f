"""Where steps end, against the slow way: every prefix decoded and split as text."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.chat_formats import plain_template
from orchestrator.conversations.tokenizers import byte_pair_tokenizer
from orchestrator.rewards.batching import batches_by_length
from orchestrator.scorers.steps import TextReader, step_ends

TEXTS = [
    "First, add 2 and 3.\n\nThat is 5.\n\nSo the answer is 5.",
    "Step 1: it is\n\n\nfine. ки\nStep 2: no ки\n",
    "你好\n\n🙂 naïve café\n\n",
] * 5


def byte_level() -> Chat:
    return _chat(byte_pair_tokenizer(TEXTS, 330))


def sentence_piece() -> Chat:
    """As Llama 2's: a space becomes an underscore, unknown characters become bytes."""
    letters = sorted({c for text in TEXTS[:2] for c in text if c.isascii() and c.isprintable()})
    pieces = ["<unk>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", *letters]
    pieces += ["▁answer", "ki", "▁is", "fine", "ки"]
    core = Tokenizer(
        models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], 0, True)
    )
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )  # fmt: skip
    return _chat(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>"))


def word_pieces() -> Chat:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[UNK]", "[SEP]"], show_progress=False
    )
    core.train_from_iterator(TEXTS, trainer)
    return _chat(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="[SEP]"))


def _chat(tokenizer: PreTrainedTokenizerFast) -> Chat:
    return Chat(tokenizer, (), plain_template())


CHATS = {"bytes": byte_level(), "sentence piece": sentence_piece(), "word pieces": word_pieces()}


def slow(chat: Chat, ids: list[int], delimiter: str) -> list[int]:
    """Each t where y_<t holds more complete steps than every shorter prefix.

    Than every one, for by Llama 2's decoder a begun character unwrites what is before it.
    """
    ends, most = [], 0
    for t in range(1, len(ids) + 1):
        complete = chat.text(ids[:t]).rstrip("\ufffd").split(delimiter)[:-1]
        steps = sum(bool(step.strip()) for step in complete)
        if steps > most:
            ends.append(t)
            most = steps
    return ends


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("delimiter", ["\n\n", "\n", ". ", "ки", "is", "好", "🙂"])
def test_step_ends_are_those_of_the_prefixes_own_texts(name: str, delimiter: str) -> None:
    chat = CHATS[name]
    found = 0
    for text in TEXTS[:3]:
        ids = list(chat.response_ids(text))
        assert step_ends(chat, ids, delimiter) == slow(chat, ids, delimiter)
        found += len(slow(chat, ids, delimiter))
    assert found or name == "word pieces", "some text holds the delimiter"


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(CHATS)),
    st.lists(st.sampled_from(["\n", "\n\n", " ", ".", "a", "is", "ки", "你", "🙂", "7"])),
    st.sampled_from(["\n\n", "\n", "a", "ки", "🙂"]),
    st.integers(0, 60),
)
def test_any_text_and_any_cut_inside_a_character(
    name: str, parts: list[str], delimiter: str, cut: int
) -> None:
    chat = CHATS[name]
    ids = list(chat.response_ids("".join(parts)))[-cut:]
    ends = slow(chat, ids, delimiter)
    assert step_ends(chat, ids, delimiter) == ends
    assert step_ends(chat, ids[:cut], delimiter) == [t for t in ends if t <= cut]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 329), max_size=30), st.sampled_from(["\n\n", "e", " "]))
def test_any_tokens_of_a_policy_that_writes_nonsense(ids: list[int], delimiter: str) -> None:
    chat = CHATS["bytes"]
    ids = [i for i in ids if i < len(chat.tokenizer)]
    assert step_ends(chat, ids, delimiter) == slow(chat, ids, delimiter)


def test_a_delimiter_inside_a_token_ends_the_step_after_that_token() -> None:
    core = Tokenizer(
        models.WordLevel({"a": 0, "\n\nb": 1, "c\n": 2, "\n": 3, "</s>": 4}, unk_token="a")
    )
    core.decoder = decoders.Fuse()
    chat = _chat(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>"))
    # a | nn b | c n | n | n | n | a : the four line ends in a row hold one step's end
    assert step_ends(chat, [0, 1, 2, 3, 3, 3, 0], "\n\n") == [2, 4]
    assert step_ends(chat, [3, 3, 0, 0], "\n\n") == [], "a blank step is none"
    assert step_ends(chat, [4, 0, 4, 3, 4, 3], "\n\n") == [6], "special tokens write nothing"
    assert step_ends(chat, [], "\n\n") == []


def test_a_copied_reader_goes_on_by_itself() -> None:
    chat = CHATS["bytes"]
    ids = chat.response_ids("你好\n\none 🙂.")
    for cut in range(len(ids)):
        first = TextReader(chat)
        before = "".join(first.read(token_id) for token_id in ids[:cut])
        for _ in range(2):
            reader = first.copy()
            rest = "".join(reader.read(token_id) for token_id in ids[cut:])
            assert before + rest == "你好\n\none 🙂."


def test_the_work_is_linear_in_the_length() -> None:
    """2,000 tokens in well under a second, which all prefixes' texts would take many times over."""
    chat = CHATS["bytes"]
    ids = list(chat.response_ids(TEXTS[0] * 200))[:2000]
    assert len(ids) == 2000
    start = time.process_time()
    ends = step_ends(chat, ids, "\n\n")
    assert time.process_time() - start < 1.0
    assert len(ends) == chat.text(ids).count("\n\n")


def test_an_empty_delimiter_is_refused() -> None:
    with pytest.raises(ValueError, match="delimiter of steps is empty"):
        step_ends(CHATS["bytes"], [1], "")


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_batches_hold_every_text_once_and_no_more_padded_tokens_than_allowed(
    lengths: list[int], limit: int
) -> None:
    batches = batches_by_length(lengths, limit)
    flat = [i for batch in batches for i in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[i] for i in flat] == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= limit
