"""Real small models of the package index: their checkpoints equal the public ones."""

import re
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from orchestrator.checkpoints.sample_models import SMOLLM2
from orchestrator.decoding.decoder import Decoder

NEW_TOKENS = 16
CHATS: tuple[str | list[dict[str, str]], ...] = (
    "Name three colours.",
    [{"role": "system", "content": "Answer in one word."},
     {"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4."},
     {"role": "user", "content": "And 10 more?\n\n1. Think.\n2. Answer."}],
)  # fmt: skip
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TEXTS = (
    "",
    "Hello, world! It's 12:45, we've 3.14159 and 1,000,000.",
    "a  1 b   22",
    "Answer:\n\n1. Red\n2. Blue\n\n\n  3. Green \n",
    "tabs\tand\r\nlines \u00a0 no-break",
    "½ of x² Ⅷ ٣٤ १२ 二三 ①",
    "naïve Ångström 日本語のテキスト 한국어 Россия مرحبا",
    "Emoji: 😀👍🏽🇺🇸 ❤️ and a broken \ufffd",
    "def f(x):\n    return x ** 2  # 10 times\n\t\tpass",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><empty_output>",
)


def messages(chat: str | list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": "user", "content": chat}] if isinstance(chat, str) else chat


@pytest.mark.samples
def test_greedy_text_of_smollm2_is_that_of_generate_token_for_token(smollm2: str) -> None:
    decoder = Decoder(smollm2)
    answers = decoder.decode(CHATS, "greedy", max_new_tokens=NEW_TOKENS)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    ends = set()
    for chat, answer in zip(CHATS, answers, strict=True):
        inputs = tokenizer.apply_chat_template(
            messages(chat), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :].tolist()
        ends.add(new[-1] == tokenizer.eos_token_id)
        assert answer.token_ids == tuple(new[:-1] if new[-1] == tokenizer.eos_token_id else new)
        assert answer.stop == ("end" if new[-1] == tokenizer.eos_token_id else "length")
    assert ends == {True, False}, "a text that ends and one that is cut"
    assert "Paris" in answers[1].text


@pytest.mark.samples
@pytest.mark.slow
def test_the_checkpoint_of_smollm2_is_that_of_the_public_model(smollm2: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    config = model.config
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (30, 576, 49_152)
    assert config.max_position_embeddings == 8192 and config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert getattr(config, "quantization_config", None) is None
    assert model.generation_config.eos_token_id == 2 and model.generation_config.pad_token_id == 2
    with safe_open(Path(smollm2) / "model.safetensors", framework="pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F32"}  # noqa: SIM118
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert tokenizer.model_max_length == 8192


@pytest.mark.samples
@pytest.mark.slow
def test_the_tokenizer_of_smollm2_splits_as_the_public_one(smollm2: str) -> None:
    tokenizer, rebuilt = AutoTokenizer.from_pretrained(smollm2), tokenizer_of_gguf()
    for text in (*TEXTS, *readme_paragraphs()):
        ids = tokenizer(text)["input_ids"]
        assert ids == rebuilt.encode(text).ids, text
        assert tokenizer.decode(ids) == text
    # What a byte level without the pre-tokenizer for digits makes otherwise.
    assert tokenizer.tokenize("Answer:\n\n1.") == ["Answer", ":", "ĊĊ", "1", "."]
    special = tokenizer("<|im_start|>user\nhi<|im_end|>")["input_ids"]
    assert (special[0], special[-1]) == (1, 2), "control tokens, and no BOS before them"
    assert tokenizer.decode(special, skip_special_tokens=True) == "user\nhi"


def tokenizer_of_gguf() -> Tokenizer:
    """From the vocabulary and merges of the file, split as llama.cpp does it for `smollm`."""
    from gguf import GGUFReader

    file = distribution(SMOLLM2.package).locate_file(SMOLLM2.source)
    fields = GGUFReader(str(file)).fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.Split(Regex(GPT2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True)
                                  if kind == 3])  # fmt: skip
    return tokenizer


def readme_paragraphs() -> list[str]:
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    return re.split(r"(?<=\n\n)", text)


@pytest.mark.samples
def test_minilm_puts_sentences_of_like_meaning_together(minilm: str) -> None:
    sentences = [
        "How do I reset my password?",
        "I forgot my login and want to set a new one.",
        "The recipe needs two eggs and some flour.",
    ]
    same, other, last = pair_cosines(minilm, sentences)
    assert same > 0.5 > 0.2 > max(other, last)


def pair_cosines(folder: str, sentences: Sequence[str]) -> tuple[float, float, float]:
    """Cosines of sentences 0 and 1, 0 and 2, 1 and 2: the mean over tokens, as the card has it."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    batch = tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state  # (B, T, D)
    mask = batch["attention_mask"][..., None]
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    cosines = means @ means.T
    return float(cosines[0, 1]), float(cosines[0, 2]), float(cosines[1, 2])
