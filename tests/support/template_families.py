"""Tokenizers with the chat templates of public model families, and a reward model on each.

The templates are written here in the public models' form: the same control tokens, line ends,
trimming and refusals. All reward models have the same weights; their tokenizers differ.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

VOCABULARY = 480  # of all models, at least that of each tokenizer
TEXTS = [
    "You are a helpful assistant. Answer in one sentence. PendingRequest: what is 2 plus 3?",
    "First add 2 and 3.\n\nThat is 5. So the answer is 5! What is the capital of France, please?",
    "system user assistant model [INST] [/INST] <<SYS>> <</SYS>> think naïve café 你好 🙂",
]
# How Llama 3 and Qwen 2 cut text before merging: line ends go together, and with a full stop.
SPLITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Writes an empty think block in front of the answers behind the last question.
QWEN_3 = (
    "{% if messages[0].role == 'system' %}"
    "{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}"
    "{% set ns = namespace(last=0) %}"
    "{% for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}"
    "{% for message in messages %}{% set content = message.content %}"
    "{% if message.role == 'user' %}"
    "{{ '<|im_start|>user\n' + content + '<|im_end|>\n' }}"
    "{% elif message.role == 'assistant' %}{% set reasoning = '' %}"
    "{% if '</think>' in content %}"
    "{% set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n')"
    " %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last and (loop.last or reasoning) %}"
    "{{ '<|im_start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n'"
    " + content.lstrip('\n') }}"
    "{% else %}{{ '<|im_start|>assistant\n' + content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Opens a think block for the policy; of an answer only what stands behind the block remains.
THINKS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|User|>' + message['content'] }}{% elif message['role'] == 'assistant' %}"
    "{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + '<|end_of_sentence|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
    "{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA_3 = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# The system message stands within the first question's marks.
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if loop.index0 == 0 and system %}"
    "{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
PHI_3 = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n"
    "{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
TULU = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}"
    "{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}"
    "{% if not loop.last %}{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}"
    "{% else %}{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Family:
    """A tokenizer with its template; ``writes_system`` says whether that takes system messages."""

    tokenizer: Callable[[], PreTrainedTokenizerFast]
    template: str | None
    writes_system: bool = True
    closing: str = ""  # what the template writes behind a response, as tokens


def byte_level(
    *special: str | AddedToken, bos: str | None = None, eos: str
) -> PreTrainedTokenizerFast:
    """A byte-level BPE."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_regex(), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    _train(core, pre_tokenizers.ByteLevel.alphabet())
    core.add_special_tokens([token for token in special if token])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token=eos)


def sentence_pieces(
    *special: str | AddedToken, eos: str, prefix_space: bool
) -> PreTrainedTokenizerFast:
    """Pieces of sentences as Llama 2's (a space in front of every text) or Gemma's (none)."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    spaces = [normalizers.Prepend("▁")] if prefix_space else []
    core.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # in training alone
    _train(core, [], "<unk>", *(f"<0x{n:02X}>" for n in range(256)))
    trained = json.loads(core.to_str())
    trained["added_tokens"], trained["pre_tokenizer"] = [], None  # bytes are no control tokens
    core = Tokenizer.from_str(json.dumps(trained))
    core.add_special_tokens(["<unk>", "<s>", "</s>", *special])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token=eos, unk_token="<unk>"
    )


def _regex() -> Regex:
    return Regex(SPLITS)


def _train(core: Tokenizer, alphabet: list[str], *special: str) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXTS * 3, trainer)


def _chatml() -> PreTrainedTokenizerFast:
    return byte_level("<|endoftext|>", "<|im_start|>", "<|im_end|>", eos="<|im_end|>")


def _llama_3() -> PreTrainedTokenizerFast:
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
    return byte_level(*names, "<|eot_id|>", bos=names[0], eos="<|eot_id|>")


def _thinks() -> PreTrainedTokenizerFast:
    names = ("<|begin_of_sentence|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>")
    tokenizer = byte_level(*names, bos=names[0], eos=names[1])
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def _qwen_3() -> PreTrainedTokenizerFast:
    tokenizer = _chatml()
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def _deepseek() -> PreTrainedTokenizerFast:
    names = ("<|begin▁of▁sentence|>", "<|end▁of▁sentence|>")
    return byte_level(*names, bos=names[0], eos=names[1])


def _phi_3() -> PreTrainedTokenizerFast:
    names = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    return sentence_pieces(
        *(AddedToken(name, rstrip=name != names[0], normalized=False) for name in names),
        eos="<|endoftext|>",
        prefix_space=True,
    )


FAMILIES: dict[str, Family] = {
    "ChatML": Family(_chatml, CHATML, closing="<|im_end|> \n"),
    "Qwen 3": Family(_qwen_3, QWEN_3, closing="<|im_end|> \n"),
    "thinks": Family(_thinks, THINKS, closing="<|end_of_sentence|>"),
    "DeepSeek": Family(_deepseek, DEEPSEEK, closing="<|end▁of▁sentence|>"),
    "Llama 3": Family(_llama_3, LLAMA_3, closing="<|eot_id|>"),
    "Gemma": Family(
        lambda: sentence_pieces(
            "<start_of_turn>", "<end_of_turn>", eos="</s>", prefix_space=False
        ),
        GEMMA, writes_system=False, closing="<end_of_turn> \n",
    ),
    "Llama 2": Family(lambda: sentence_pieces(eos="</s>", prefix_space=True), LLAMA_2),
    "Mistral": Family(
        lambda: sentence_pieces(eos="</s>", prefix_space=True), MISTRAL,
        writes_system=False, closing="</s>",
    ),
    "Mistral, bytes": Family(
        lambda: byte_level("<s>", "</s>", "[INST]", "[/INST]", bos="<s>", eos="</s>"), MISTRAL,
        writes_system=False, closing="</s>",
    ),
    "Phi 3": Family(_phi_3, PHI_3, closing="<|end|> <|endoftext|>"),
    "Zephyr": Family(lambda: sentence_pieces(eos="</s>", prefix_space=True), ZEPHYR),
    "Tulu": Family(
        lambda: byte_level("<s>", "</s>", bos="<s>", eos="</s>"), TULU, closing="</s>"
    ),
    "GPT-2, no template": Family(
        lambda: byte_level("<|endoftext|>", bos="<|endoftext|>", eos="<|endoftext|>"), None,
        closing="<|endoftext|>",
    ),
}  # fmt: skip


def reward_model(name: str, folder: Path) -> str:
    """The checkpoint of a one-label classifier with a family's tokenizer."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    tokenizer.chat_template = family.template
    assert len(tokenizer) <= VOCABULARY
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512, num_labels=1,
        initializer_range=0.1, pad_token_id=0, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
