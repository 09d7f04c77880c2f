"""Responses retokenized tail by tail against the whole text tokenized, for real tokenizers."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.chat_formats import plain_template
from orchestrator.conversations.response_border import ResponseBorder
from orchestrator.conversations.retokenizing import Retokenizer
from orchestrator.conversations.stop_texts import INCOMPLETE

TEXTS = [
    "Sure, I can help you. Could you tell me the number of the order? It's 1234567, isn't it!",
    "def add(a, b):\n    return a + b\n\n\nStep 1: 3.14 + 2.72 = 5.86\n\n  Therefore  the answer",
    "naïve café Ångström żółw 東京都 こんにちは 🙂👩‍👩‍👧 e\u0301a\u0308 ﬁne"
    " don't won't I'll they've",
]
# Splits as Llama 3's tokenizer does.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KINDS = ("byte_pair", "llama_3", "unigram", "word_piece", "without_words")


@cache
def chat(kind: str) -> Chat:
    tokenizer = made(kind)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>",
        clean_up_tokenization_spaces=kind == "word_piece",
    )  # fmt: skip
    return Chat(wrapped, (), plain_template())


def made(kind: str) -> Tokenizer:
    """A tokenizer trained here, built as those of a family of models are."""
    special, alphabet = ["<unk>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    if kind in ("byte_pair", "llama_3"):
        tokenizer = Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "llama_3")
        tokenizer.pre_tokenizer = (
            pre_tokenizers.Sequence([split, byte_level]) if kind == "llama_3" else byte_level
        )
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=kind == "byte_pair")
        trainer: trainers.Trainer = trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=160, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    elif kind == "word_piece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=200, special_tokens=special, show_progress=False
        )
    else:  # as Llama 2's: one long word, with marks for spaces
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


words = st.sampled_from(
    [word for text in TEXTS for word in text.split()]
    + ["\n", "\n\n", "  ", " ", "\t", "1", "23", "'", "'s", "\u0301", "…", "</s>", "<", "🙂"]
)
texts = st.lists(st.tuples(words, st.sampled_from(["", " ", " ", " "])), max_size=40).map(
    lambda parts: "".join(word + gap for word, gap in parts)
)


@settings(max_examples=300, deadline=None)
@given(texts, st.sampled_from(KINDS), st.sampled_from(KINDS), st.data())
def test_tail_by_tail_equals_the_whole(
    text: str, policy: str, own: str, data: st.DataObject
) -> None:
    """From any prefix to any extension, some of which go on from each other."""
    theirs, mine = chat(policy), chat(own)
    retokenizer = Retokenizer(theirs, mine)
    ids = theirs.response_ids(text)
    at = 0
    while True:
        size = data.draw(st.integers(0, min(12, len(ids) - at)))
        others = [ids[at : at + n] for n in (size, max(size - 1, 0), 1)]
        for extension in (*others, (*others[0], *ids[:2])):
            expected = ResponseBorder(mine).in_context(
                theirs.text(ids[:at] + extension).rstrip(INCOMPLETE)
            )
            assert retokenizer.response(ids[:at], extension) == expected
        at += max(size, 1)
        if at >= len(ids):
            break


@pytest.mark.parametrize("own", ["byte_pair", "llama_3", "unigram", "word_piece"])
def test_only_the_last_words_are_tokenized_again(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, mine = chat("byte_pair"), chat(own)
    retokenizer = Retokenizer(theirs, mine)
    tokenized: list[str] = []
    encoded = Retokenizer._encoded

    def told(self: Retokenizer, text: str) -> object:
        tokenized.append(text)
        return encoded(self, text)

    monkeypatch.setattr(Retokenizer, "_encoded", told)
    ids = theirs.response_ids(" ".join(TEXTS[:1] * 5))
    retokenizer.response(ids[:60])
    for at in range(60, len(ids), 3):
        tokenized.clear()
        text = theirs.text(ids[: at + 3]).rstrip(INCOMPLETE)
        assert retokenizer.response(ids[:at], ids[at : at + 3]) == ResponseBorder(mine).in_context(
            text
        )
        (again,) = tokenized
        assert len(again.split()) <= 5 + 3 and text.endswith(again)


def test_a_text_without_words_is_tokenized_whole() -> None:
    theirs, mine = chat("byte_pair"), chat("without_words")
    ids = theirs.response_ids(TEXTS[0])
    retokenizer = Retokenizer(theirs, mine)
    for at in range(1, len(ids)):
        expected = ResponseBorder(mine).in_context(theirs.text(ids[: at + 1]))
        assert retokenizer.response(ids[:at], ids[at : at + 1]) == expected


def bytes_with(*merges: tuple[str, str]) -> Chat:
    """A byte-level BPE of GPT-2's words with these merges alone."""
    vocabulary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(m) for m in merges)]
    model = models.BPE({token: i for i, token in enumerate(vocabulary)}, list(merges))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    return Chat(wrapped, (), plain_template())


def test_a_tail_that_begins_within_a_word_has_no_say_in_it() -> None:
    """Alone `'saaaaaa` is `'s` and `aaaaaa`; behind a space it is ` '` and `saaaaaa`."""
    theirs = bytes_with()
    mine = bytes_with(("s", "a"), ("a", "a"), ("aa", "aa"), ("Ġ", "s"))
    retokenizer = Retokenizer(theirs, mine)
    ids = theirs.response_ids("he said 'saaaaaa it is so good and so is that")
    for at in range(len(ids)):
        expected = ResponseBorder(mine).in_context(theirs.text(ids[: at + 1]))
        assert retokenizer.response(ids[:at], ids[at : at + 1]) == expected
