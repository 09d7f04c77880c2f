"""The numbers of the public step-tag models: their makers' text, tokenized whole, a plain forward.

The oracle (`reward_oracles.py`) writes a prefix's text as the public code writes it.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reward_kinds import MAKERS, QUESTION, WORDS, sentence_piece
from support.reward_oracles import BY_HAND, USER
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.chat_formats import plain_template
from orchestrator.scorers.loading import chat_of, load_scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.tagged import TagFormat, TaggedText
from orchestrator.search.engines import Ids, ScoreRequest

TOLERANCE = 1e-4
# How Qwen2 cuts text before merging: a full stop and the line ends behind it may be one token.
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
APART = r" |\p{L}+|\p{N}|[^\s\p{L}\p{N}]+[\r\n]*|\s+"  # the same, but spaces are alone
TEMPLATE = (
    "{% for message in messages %}<{{ 'agent' if message.role == 'assistant' else 'user' }}>"
    "{{ message.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<agent>{% endif %}"
)
LINES = "first add 2 and 3.\nthat is (5).\n\nso the answer is $5$.\n"
PARAGRAPHS = "first add 2 and 3.\n\nthat is (5).\n\n\nso\nthe answer is $5$.\n\n"


def qwen_like(*special: str, regex: str = QWEN) -> PreTrainedTokenizerFast:
    """A byte-level BPE that merges full stops with line ends."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<end>", "<user>", "<agent>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([QUESTION, LINES, PARAGRAPHS, "2 ки\n3 + -"] * 4, trainer)
    return _tokenizer(core)


def words(*special: str) -> PreTrainedTokenizerFast:
    """Every word, space and line end a token; nothing is lost."""
    known = ["<end>", "<user>", "<agent>", *special, " ", "\n", "(", ")", "$", "."]
    known += [word for word in (*WORDS, "ки", "+", "-") if word not in known]
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, "<end>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens(["<end>", "<user>", "<agent>", *special])
    return _tokenizer(core)


def _tokenizer(core: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", unk_token="<end>", pad_token="<end>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def without_template(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.chat_template = None
    return tokenizer


# Checkpoint's kind, tokenizer, delimiter.
CASES: dict[str, tuple[str, Callable[[], PreTrainedTokenizerFast], str]] = {
    "Qwen, bytes": ("process_head", lambda: qwen_like("<extra_0>"), "\n\n"),
    "Qwen, words": ("process_head", lambda: words("<extra_0>"), "\n\n"),
    "TRL, bytes": ("token_classes", qwen_like, "\n"),
    "TRL, words": ("token_classes", words, "\n"),
    "Shepherd, pieces": ("shepherd", lambda: sentence_piece("▁ки", "▁+", "▁-"), "\n"),
    "Shepherd, bytes": ("shepherd", lambda: without_template(qwen_like(regex=APART)), "\n"),
    "Shepherd, words": ("shepherd", lambda: without_template(words()), "\n"),
}


@pytest.fixture(scope="module", params=CASES)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, str]:
    kind, tokenizer, delimiter = CASES[request.param]
    llama = {"llama": True} if request.param in ("Qwen, words", "TRL, words") else {}
    return kind, MAKERS[kind](tmp_path_factory.mktemp(kind), tokenizer(), **llama), delimiter


@torch.no_grad()
def test_every_prefix_scores_as_the_public_code_scores_its_text(
    made: tuple[str, str, str],
) -> None:
    kind, checkpoint, delimiter = made
    spec = ScorerSpec(checkpoint, "step_tag", "product")
    scorer, chat = load_scorer(spec), chat_of(spec)
    text = PARAGRAPHS if delimiter == "\n\n" else LINES
    conversation = chat.conversation(USER, text)
    prompt, y = conversation.prompt_ids, conversation.response_ids
    wanted = []
    for t in range(1, len(y) + 1):
        assert chat.response_ids(chat.text(y[:t])) == y[:t], "or the texts would say nothing"
        wanted.append(math.prod(BY_HAND[kind](checkpoint, y[:t], delimiter)))
    assert len(BY_HAND[kind](checkpoint, y, delimiter)) == 3
    merged = [token for token in y if chat.text((token,)).strip() and "\n" in chat.text((token,))]
    assert len(merged) == (
        3 if isinstance(chat.tokenizer.backend_tokenizer.model, models.BPE) else 0
    )
    assert torch.tensor(wanted).std() > 0.01
    cuts = list(range(1, len(y) + 1))
    found = scorer.prefix_scores([prompt], [y], [cuts])[0]
    assert found == pytest.approx(wanted, abs=TOLERANCE)
    for split in range(0, len(y), 3):
        ends = range(max(split, 1), len(y) + 1)
        (scored,) = scorer.score([ScoreRequest(prompt, y[:split], tuple(y[split:t] for t in ends))])
        assert scored.scores == pytest.approx(wanted[max(split, 1) - 1 :], abs=TOLERANCE)


def test_only_a_judge_of_steps_without_a_template_gets_math_shepherds_prompt(
    tmp_path: Path,
) -> None:
    plain = MAKERS["shepherd"](tmp_path / "plain")
    templated = MAKERS["shepherd"](tmp_path / "templated", words())
    pieces = load_chat(plain).tokenizer
    for kind, gap in (("step_tag", " "), ("log_ratio", "\n\n")):
        spec = ScorerSpec(plain, kind, base=plain if kind == "log_ratio" else None)
        text = chat_of(spec).conversation(USER, "first add")
        whole = pieces(f"{QUESTION}{gap}first add")["input_ids"]
        assert text.prompt_ids + text.response_ids == tuple(whole)
        assert load_scorer(spec).chat == chat_of(spec)
    chat = chat_of(ScorerSpec(templated, "step_tag"))
    assert chat.text(chat.prompt_ids(USER)) == QUESTION
    assert chat.tokenizer.decode(chat.prompt_ids(USER)) == f"<user>{QUESTION}<end><agent>"


BYTES = qwen_like("<extra_0>")
CHAT = Chat(BYTES, (), plain_template())
TAG = BYTES.convert_tokens_to_ids("<extra_0>")
PIECES = ["\n", "\n\n", "\n\n\n", " ", ".", ").", "$.", "first", " add", "5", " is", "é", "🙂"]


def written(text: TaggedText, trunk: TaggedText | None = None) -> list[Ids]:
    """What stands before each reading, the tag included, as branches of a trunk."""
    tokens = (trunk or text).token_ids
    branches = [
        reading.branch(tokens)
        for reading in text.scored_texts(True, None if trunk is None else len(trunk.closed))
    ]
    return [tokens[: branch.attach] + branch.token_ids for branch in branches]


def public(text: str) -> Ids:
    """The steps joined by the tag and tokenized whole; of white space at the end nothing."""
    steps = [step for step in text.split("\n\n") if step.strip()]
    if steps and text.endswith("\n") and steps[-1] == text.split("\n\n")[-1]:
        steps[-1] = steps[-1][:-1]
    return CHAT.marker_ids("<extra_0>".join(steps or [""]) + "<extra_0>")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_text_is_written_as_the_public_code_tokenizes_it(parts: list[str]) -> None:
    text = TaggedText(CHAT, TagFormat((TAG,), "\n\n"))
    text.read(CHAT.response_ids("".join(parts)))
    assert written(text)[-1] == public("".join(parts))
    assert [len(own) for own in written(text)][: len(text.ends)] == list(text.ends)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(4, len(BYTES) - 1), max_size=20),
    st.sampled_from(["\n\n", "\n", "."]),
    st.booleans(),
    st.integers(0, 20),
)
def test_any_tokens_are_the_same_in_one_go_and_by_extension(
    ids: list[int], delimiter: str, moved: bool, split: int
) -> None:
    form = TagFormat((TAG,), delimiter, CHAT.response_ids(delimiter), moved)
    whole, prefix = TaggedText(CHAT, form), TaggedText(CHAT, form)
    prefix.read(tuple(ids[:split]))
    extended = prefix.copy()
    before = written(prefix)
    extended.read(tuple(ids[split:]))
    whole.read(tuple(ids))
    assert written(extended, prefix) == written(whole)
    assert written(prefix) == before, "a copy goes on by itself"
    assert all(own[-1] == TAG and own.count(TAG) == n for n, own in enumerate(written(whole), 1))


MIXED = [".\n\n", "\n\nb", "a\n\nb", ".\n", "\n\n\n\nb", "?\n\n", "\n\n?", "?"]


def by_hand(moved: bool, *tokens: str) -> str:
    """Tokens of a vocabulary as a step-tag model reads them; the tokenizer knows no lone "?"."""
    names = ["</s>", "<unk>", "#", "a", "b", ".", "\n", *MIXED[:-1]]
    core = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    text = TaggedText(Chat(tokenizer, (), plain_template()), TagFormat((2,), "\n\n", (6, 6), moved))
    text.read(tuple(names.index(token) for token in tokens))
    return "|".join(names[i] for i in written(text)[-1]).replace("\n", "n")


@pytest.mark.parametrize(
    ("tokens", "left_out", "moved"),
    [
        (("a", ".\n\n", "b"), "a|.|#|b|#", "a|.|#|n|n|b|#"),
        (("a", "\n\nb", "a"), "a|#|b|a|#", "a|#|n|n|b|a|#"),
        (("a\n\nb", "a"), "a|#|b|a|#", "a|#|n|n|b|a|#"),
        (("a", "\n\n\n\nb"), "a|#|b|#", "a|#|n|n|b|#"),
        (("\n\n\n\nb", "\n"), "b|#", "b|#"),
        (("a", ".\n"), "a|.|#", "a|.|#"),
        (("a", "\n", "b", "\n", "\n"), "a|n|b|#", "a|n|b|#"),
    ],
)
def test_a_token_over_a_border_is_written_anew(
    tokens: tuple[str, ...], left_out: str, moved: str
) -> None:
    assert (by_hand(False, *tokens), by_hand(True, *tokens)) == (left_out, moved)


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        (("a", "?\n\n", "b"), "a|?nn|#|b|#"),
        (("a", "\n\n?", "b", "\n", "\n"), "a|nn?|#|b|#"),
        (("a", "\n\n?"), "a|nn?|#"),
        (("\n\n?", "b"), "nn?|b|#"),
    ],
)
def test_a_token_that_cannot_be_written_anew_stays_in_front_of_the_tag(
    tokens: tuple[str, ...], found: str
) -> None:
    assert by_hand(False, *tokens) == by_hand(True, *tokens) == found


@pytest.mark.parametrize(
    ("before", "word", "behind", "anew"),
    [
        ("first", " add", ".", False),
        ("first", " add", ".\n\n", True),
        ("", "first", ".\n\n", False),
    ],
)
def test_a_step_in_tokens_of_the_policys_own_choice(
    before: str, word: str, behind: str, anew: bool
) -> None:
    """Tokenized anew only where its end asks for it, and where it begins as the tokenizer would."""
    letters = tuple(i for letter in word for i in CHAT.response_ids(letter))
    end = CHAT.response_ids(behind)
    assert CHAT.response_ids(before + word) != CHAT.response_ids(before) + letters
    assert len(end) == 1
    text = TaggedText(CHAT, TagFormat((TAG,), "\n\n"))
    own = CHAT.response_ids(before) + letters + end
    text.read(own)
    assert written(text)[-1] == (public(f"{before}{word}.") if anew else (*own, TAG))
