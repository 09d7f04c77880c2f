"""Chat templates: one BOS, the closing suffix of each family, the border of prompt and response."""

from pathlib import Path

import pytest
from support.template_families import LLAMA_3
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.tokenizers import byte_pair_tokenizer, word_tokenizer

TEXTS = ["hello world , how are you ?", "system user assistant", "naïve café 你好 🙂"]
USER = [{"role": "user", "content": "how are you ?"}]
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3_SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>",
]  # fmt: skip


def byte_level(special: list[str], bos: str | None, eos: str, template: str | None):  # type: ignore[no-untyped-def]
    """A byte-level BPE whose post-processor adds the BOS, as Llama 3's does."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXTS, trainer)
    if bos is not None:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token=eos)
    tokenizer.chat_template = template
    return tokenizer


def chat_of(tokenizer, folder: Path) -> Chat:  # type: ignore[no-untyped-def]
    tokenizer.save_pretrained(folder)
    return load_chat(str(folder))


@pytest.fixture
def llama_3(tmp_path: Path) -> Chat:
    special = LLAMA_3_SPECIAL
    return chat_of(byte_level(special, special[0], "<|end_of_text|>", LLAMA_3), tmp_path)


def ids(chat: Chat, *tokens: str) -> tuple[int, ...]:
    return tuple(chat.tokenizer.convert_tokens_to_ids(list(tokens)))


def test_a_template_that_writes_the_bos_gets_no_second_one(llama_3: Chat) -> None:
    bos = llama_3.tokenizer.bos_token_id
    assert llama_3.tokenizer("how")["input_ids"][0] == bos, "the tokenizer itself adds one"
    prompt = llama_3.prompt_ids(USER)
    assert prompt.count(bos) == 1 and prompt[0] == bos
    assert bos not in llama_3.response_ids("hello world")


def test_llama_3_closes_with_eot_and_may_end_with_either_end_token(llama_3: Chat) -> None:
    eot, end = ids(llama_3, "<|eot_id|>", "<|end_of_text|>")
    assert llama_3.closing_ids == (eot,)
    assert llama_3.end_ids == (eot, end)


def test_chatml_closes_with_im_end(tmp_path: Path) -> None:
    special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    chat = chat_of(byte_level(special, None, "<|im_end|>", CHATML), tmp_path)
    (im_end,) = ids(chat, "<|im_end|>")
    assert chat.closing_ids == (im_end, *chat.marker_ids("\n"))
    assert chat.end_ids == (im_end,)
    text = chat.tokenizer.decode(chat.prompt_ids(USER))
    assert text == "<|im_start|>user\nhow are you ?<|im_end|>\n<|im_start|>assistant\n"


def test_without_a_template_the_end_token_closes_and_the_bos_is_the_tokenizers(
    tmp_path: Path,
) -> None:
    chat = chat_of(byte_level(["<s>", "</s>"], "<s>", "</s>", None), tmp_path)
    (bos, end) = ids(chat, "<s>", "</s>")
    assert chat.closing_ids == chat.end_ids == (end,)
    prompt = chat.prompt_ids(USER)
    assert prompt[0] == bos and prompt.count(bos) == 1
    assert chat.tokenizer.decode(prompt[1:]) == "how are you ?\n\n"


def test_the_embedded_tokenizers_close_with_their_end_token(tmp_path: Path) -> None:
    for name, tokenizer in (
        ("words", word_tokenizer(["how", "are", "you", "?"])),
        ("bytes", byte_pair_tokenizer(TEXTS, 300)),
    ):
        chat = chat_of(tokenizer, tmp_path / name)
        assert chat.closing_ids == chat.end_ids == ids(chat, "<end>")
        assert chat.prompt_ids(USER)[-1] == ids(chat, "<agent>")[0]


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    core = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        load_chat(str(tmp_path))


def test_ultra_rms_format_is_known_by_its_architecture_and_closes_with_nothing(
    tmp_path: Path,
) -> None:
    """Its card writes "Human:" and "Assistant:", and the reward is read at the last token."""
    turns = [*USER, {"role": "assistant", "content": "fine"}, {"role": "user", "content": "so ?"}]
    byte_level(["<s>", "</s>"], "<s>", "</s>", None).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaRewardModel"]}')
    chat = load_chat(str(tmp_path))
    (end,) = ids(chat, "</s>")
    assert chat.closing_ids == () and chat.end_ids == (end,)
    text = "<s>Human: how are you ?\n\nAssistant: fine\n\nHuman: so ?\n\nAssistant:"
    assert chat.tokenizer.decode(chat.prompt_ids(turns)) == text
    chat.tokenizer.save_pretrained(tmp_path / "trained on")
    again = load_chat(str(tmp_path / "trained on"))
    assert again.closing_ids == () and again.prompt_ids(turns) == chat.prompt_ids(turns)


def test_a_template_of_its_own_counts_more_than_separators(tmp_path: Path) -> None:
    tokenizer = byte_level(
        ["<s>", "</s>"], "<s>", "</s>", "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    tokenizer.cls_token, tokenizer.sep_token = "<s>", "</s>"
    assert not chat_of(tokenizer, tmp_path / "template").text_pair
    tokenizer.chat_template = None
    # It has both tokens, but writes no separator between two texts.
    chat = chat_of(tokenizer, tmp_path / "plain")
    assert not chat.text_pair and chat.closing_ids == ids(chat, "</s>")


@pytest.mark.parametrize("response", ["hello world", " you ?", "\nworld", "naïve café 你好 🙂"])
def test_prompt_and_response_meet_at_a_token_border(llama_3: Chat, response: str) -> None:
    """Prompt + response + closing are the tokens of the whole conversation, with one border."""
    tokens = llama_3.response_ids(response)
    whole = llama_3.prompt_ids(USER) + tokens + llama_3.closing_ids
    prompt = llama_3.tokenizer.decode(llama_3.prompt_ids(USER))
    assert llama_3.tokenizer.decode(whole) == f"{prompt}{response}<|eot_id|>"
    assert llama_3.text(tokens) == response
    assert llama_3.text((*tokens, *llama_3.closing_ids)) == response


def test_a_prompt_that_ends_in_white_space_does_not_merge_with_the_response(llama_3: Chat) -> None:
    prompt, response = llama_3.prompt_ids(USER), llama_3.response_ids("\n\nhello")
    text = llama_3.tokenizer.decode(prompt)
    assert text.endswith("\n\n")
    together = llama_3.tokenizer(text + "\n\nhello", add_special_tokens=False)["input_ids"]
    assert llama_3.tokenizer.decode(together) == llama_3.tokenizer.decode(prompt + response)
    assert (prompt + response)[: len(prompt)] == prompt


def test_a_prefix_cut_inside_a_character_is_still_text(llama_3: Chat) -> None:
    ids = llama_3.response_ids("你好 🙂")
    texts = [llama_3.text(ids[:t]) for t in range(len(ids) + 1)]
    assert "\ufffd" in "".join(texts), "some cut falls inside a character"
    assert texts[-1] == "你好 🙂"
