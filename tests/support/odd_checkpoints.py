"""Checkpoints that are not what they seem: a whole tiny model, and one thing about it that is odd.

Each is a kind of what people have on their disks. ``POLICIES`` are given as a policy, ``REWARDS``
as a reward model, ``DAMAGE`` as both; each has a part of the sentence that refuses it.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from support import reward_kinds
from support.reward_kinds import SIZES, bytes_with, rewrite

Change = Callable[[Path], object]
WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
LAYER = "model.layers.1."
TOKENIZER, TEMPLATE = "tokenizer.json", "chat_template.jinja"


def language_model(folder: Path, **fields: object) -> str:
    """A whole Llama language model with a byte-level tokenizer and a chat template."""
    tokenizer = bytes_with()
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id,
        **SIZES, **fields,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def without(*parts: str) -> Change:
    """Drops the weights whose names hold one of the parts."""

    def change(folder: Path) -> None:
        names = load_file(folder / WEIGHTS)
        rewrite(folder, {}, drop=tuple(n for n in names if any(part in n for part in parts)))

    return change


def with_config(**fields: object) -> Change:
    """Sets fields of the config."""

    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | fields))

    return change


def stored_as(dtype: torch.dtype) -> Change:
    """Stores the weights of the layers in another dtype."""

    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        cast = {n: v.to(dtype) if ".layers." in n else v for n, v in weights.items()}
        save_file(cast, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def written(name: str, content: str | bytes) -> Change:
    """Writes a file anew."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str) -> Change:
    """Leaves a file half as long."""
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def removed(*names: str) -> Change:
    """Removes files."""

    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def in_shards(change: Callable[[dict[str, str], Path], object]) -> Change:
    """Writes the weights in two shards and changes their index, or a shard."""

    def sharded(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        files = {name: f"model-0000{1 + (LAYER in name)}-of-00002.safetensors" for name in weights}
        for file in set(files.values()):
            part = {n: v for n, v in weights.items() if files[n] == file}
            save_file(part, folder / file, metadata={"format": "pt"})
        change(files, folder)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))

    return sharded


def with_tokens(*tokens: str, template: tuple[str, str] | None = None) -> Change:
    """Adds tokens to the tokenizer: words, or what the template writes in place of another text."""

    def change(folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(list(tokens), special_tokens=template is not None)
        if template is not None:
            tokenizer.chat_template = tokenizer.chat_template.replace(*template)
        tokenizer.save_pretrained(folder)

    return change


def pickled(folder: Path) -> None:
    """The weights as a pickle of torch, and no safetensors."""
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def bert_that_fills_gaps(folder: Path) -> str:
    """A masked language model: what is given as a policy where the difference is not known."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *reward_kinds.WORDS]
    tokenizer = BertTokenizerFast(vocab={word: n for n, word in enumerate(words)})
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SIZES)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def encoder_decoder(folder: Path) -> str:
    """A T5."""
    tokenizer = bytes_with()
    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1,
                      num_heads=4, decoder_start_token_id=0)  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def without_an_expert(folder: Path) -> str:
    """A Mixtral that lacks one matrix of one expert."""
    tokenizer = bytes_with()
    config = MixtralConfig(vocab_size=len(tokenizer), num_key_value_heads=2, num_local_experts=2,
                           eos_token_id=tokenizer.eos_token_id, **SIZES)  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    without("layers.1.block_sparse_moe.experts.1.w1")(folder)
    return str(folder)


def changed(change: Change, base: Callable[[Path], str] = language_model) -> Callable[[Path], str]:
    """A whole checkpoint with one change."""

    def make(folder: Path) -> str:
        checkpoint = base(folder)
        change(folder)
        return checkpoint

    return make


def labelled(count: int) -> Change:
    """A head of several labels."""

    def change(folder: Path) -> None:
        random = torch.Generator().manual_seed(count)
        score = 0.2 * torch.randn(count, reward_kinds.WIDTH, generator=random)
        rewrite(folder, {"score.weight": score})
        with_config(id2label={str(n): f"label {n}" for n in range(count)})(folder)

    return change


def pointer(folder: Path) -> None:
    """What `git clone` leaves without Git LFS."""
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 100\n"
    (folder / WEIGHTS).write_text(text)


# Damage to files that every model has, whatever it is given as.
DAMAGE: dict[str, tuple[Change, str]] = {
    "a layer without its MLP": (without(f"{LAYER}mlp."), f"missing: {LAYER}mlp.down_proj"),
    "a layer left out of the config": (
        with_config(num_hidden_layers=1), f"not in the model .*: {LAYER}input_layernorm.weight"),
    "a layer that is not there": (
        with_config(num_hidden_layers=3), r"missing: model\.layers\.2\.input_layernorm"),
    "an embedding of other rows": (
        with_config(vocab_size=999), r"of another shape: .*embed_tokens.weight \d+x32 instead"),
    "layers of another width": (
        with_config(intermediate_size=96), r"mlp.down_proj.weight 32x48 instead of 32x96"),
    "int8 weights": (
        stored_as(torch.int8), "stored as I8, and config.json has no quantization_config: .* deq"),
    "8-bit floats": (stored_as(torch.float8_e4m3fn), "stored as F8_E4M3, and config.json has no"),
    "an unknown quantization": (
        with_config(quantization_config={"quant_method": "magic"}), "quantization_config: .*magic"),
    "a quantization of a package that is not there": (
        with_config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantization_config: .*(gptq|optimum)"),
    "more tokens than rows": (
        with_tokens("more0", "more1", "more2"),
        r"gives ids up to 291 \('more2'\), and its embedding has 289 rows, for ids 0 to 288"),
    "a token of the template past the rows": (
        with_tokens("<|user|>", template=("<user>", "<|user|>")),
        r"gives ids up to 289 \('<\|user\|>'\), and its embedding has 289 rows"),
    "an empty template": (
        written(TEMPLATE, ""), f"{TEMPLATE}: the chat template writes the response 0 times"),
    "a template of the last role alone": (
        written(TEMPLATE, "{% for m in messages %}<user> {{ m.role }} <end>{% endfor %}"),
        "chat_template.jinja: the chat template writes the response 0 times"),
    "a template of answers alone": (
        written(TEMPLATE, "{% for m in messages if m.role == 'assistant' %}{{ m.content }}<end>"
            "{% endfor %}{% if add_generation_prompt %}<agent>{% endif %}"),
        r"chat template \(chat_template.jinja\) does not render the prompt's content"),
    "a template that is no Jinja": (
        written(TEMPLATE, "{% for m in messages %}{{ m.content }}"),
        "chat_template.jinja is not a Jinja template: line 1: "),
    "a template with an unknown name": (
        written(TEMPLATE, "{{ nowhere.x }}"), "template refuses the conversation: 'nowhere'"),
    "a template that refuses all": (
        written(TEMPLATE, "{{ raise_exception('not for chat') }}"),
        "template refuses the conversation: not for chat"),
    "a config that is a list": (written(CONFIG, "[]"), "config.json is a list, not a JSON object"),
    "a config that is no JSON": (written(CONFIG, "{model_type"), "config.json is not JSON: Expect"),
    "an empty config": (written(CONFIG, ""), "config.json is not JSON: "),
    "a config that is no text": (written(CONFIG, b"\xff\xfe{}"), "config.json is not JSON: 'utf-"),
    "a config without anything": (written(CONFIG, "{}"), "config.json: model_type = None is not"),
    "an unknown model": (with_config(model_type="own"), "model_type = 'own' is not one that"),
    "code of its own": (
        with_config(model_type="own", auto_map={"AutoConfig": "own.Own"}),
        r"its own code \(auto_map\) is not run"),
    "a width that is text": (with_config(hidden_size="big"), "config.json: .*'hidden_size' exp"),
    "no heads": (with_config(num_attention_heads=0), "config.json: ZeroDivisionError: "),
    "an unknown activation": (
        with_config(hidden_act="magic"), "cannot build a ModelFor.*KeyError: 'magic'"
    ),
    "half a file of weights": (
        cut(WEIGHTS), "cannot read the safetensors header of model.safetensors: "),
    "an empty file of weights": (
        written(WEIGHTS, b""), "cannot read the safetensors header of model.safetensors: "),
    "a pointer of Git LFS": (pointer, f"header of {WEIGHTS}: a pointer of Git LFS; run"),
    "a shard that is missing": (
        in_shards(lambda files, folder: (folder / files[f"{LAYER}mlp.up_proj.weight"]).unlink()),
        "model-00002-of-00002.safetensors is missing; model.safetensors.index.json names it for"),
    "half a shard": (
        in_shards(lambda files, folder: cut(files["model.norm.weight"])(folder)),
        "cannot read the safetensors header of model-00001-of-00002.safetensors: "),
    "a shard that lacks a tensor": (
        in_shards(lambda files, folder: files.update(
            {f"{LAYER}mlp.up_proj.weight": files["model.norm.weight"]})),
        f"model-00001-of-00002.safetensors does not hold {LAYER}mlp.up_proj.weight"),
    "an index that is no JSON": (
        lambda folder: (in_shards(lambda files, folder: None)(folder), cut(INDEX)(folder)),
        "model.safetensors.index.json is not JSON"),
    "an index of nothing": (
        lambda folder: (in_shards(lambda files, folder: None)(folder),
                        written(INDEX, "{}")(folder)),
        "model.safetensors.index.json has no weight_map"),
    "half a tokenizer": (cut(TOKENIZER), "tokenizer.json is not JSON: "),
    "a tokenizer that is a list": (written(TOKENIZER, "[]"), "tokenizer.json is a list, not"),
    "a tokenizer of nothing": (written(TOKENIZER, "{}"), "its tokenizer's files"),
    "a tokenizer config that is a list": (
        written("tokenizer_config.json", "[]"), "tokenizer_config.json is a list, not a JSON"),
    "no tokenizer": (removed(TOKENIZER, "tokenizer_config.json"), "it has no tokenizer; valid: "),
    "a template that is no text": (written(TEMPLATE, b"\xff"), "its tokenizer's files .*utf-8"),
    "pickled weights alone": (pickled, r"no weights as safetensors .* convert it once by: .*py"),
    "no config": (removed(CONFIG), "the folder has neither config.json nor adapter_config.json"),
    "no weights": (removed(WEIGHTS), "the folder has no \\*.safetensors"),
}  # fmt: skip

POLICIES: dict[str, tuple[Callable[[Path], str], str]] = {
    "a reward model": (reward_kinds.sequence, "reward head score; valid: a causal language model"),
    "a model with a value head": (
        reward_kinds.value_head, r"a value head \(v_head.summary\); valid: a causal language"),
    "a process reward model": (
        reward_kinds.process_head, "read at step tags; valid: a causal language model"),
    "a BERT": (reward_kinds.bert, "an encoder with one label; valid: a causal language model"),
    "a BERT that fills gaps": (bert_that_fills_gaps, "an encoder, attends in both directions and"),
    "a T5": (encoder_decoder, "transformers has no ModelForCausalLM of the model_type 't5'"),
    "no head": (changed(without("lm_head")), "missing: lm_head.weight"),
    "an expert that lacks a matrix": (
        without_an_expert, "not those of a MixtralForCausalLM: some weights that are merged"),
    "generation settings that are no JSON": (
        changed(written("generation_config.json", "{")), "generation_config.json is not JSON"),
}  # fmt: skip

REWARDS: dict[str, tuple[Callable[[Path], str], str]] = {
    "a language model": (language_model, r"no reward head \(score, .*\) among its weights"),
    "a T5": (encoder_decoder, "an encoder with a decoder"),
    "a template that writes prompts for a policy alone": (
        changed(written(TEMPLATE, "{% for m in messages if m.role == 'assistant' or"
                " add_generation_prompt %}{{ m.content }}<end>{% endfor %}"),
                reward_kinds.sequence),
        r"chat template \(chat_template.jinja\) does not render the prompt's content"),
    "two labels": (
        changed(labelled(2), reward_kinds.sequence),
        "its head has 2 labels, and which of them is the score is not set; valid: score_label "
        "from 0"),
    "five labels": (
        changed(labelled(5), reward_kinds.sequence),
        "5 labels, .*; valid: score_label from 0 to 4"),
    "an encoder of two labels": (
        changed(with_config(id2label={"0": "a", "1": "b"}), reward_kinds.bert),
        "2 labels, .*; valid: score_label from 0 to 1"),
    "an encoder without its head's bias": (
        changed(without("classifier.bias"), reward_kinds.bert), "missing: classifier.bias"),
    "an encoder that lacks a layer": (
        changed(without("encoder.layer.1.attention.self"), reward_kinds.deberta),
        "missing: deberta.encoder.layer.1.attention.self"),
    "a head of another width": (
        changed(lambda folder: rewrite(folder, {"score.weight": torch.zeros(1, 8)}),
                reward_kinds.sequence),
        "score.weight 1x8 instead of 1x32"),
    "another trainer's head of another width": (
        changed(lambda folder: rewrite(folder, {"regression_head.weight": torch.zeros(1, 8)}),
                reward_kinds.ultra_rm),
        "regression_head.weight has 8 inputs, but the hidden size of the backbone is 32"),
    "two heads": (
        changed(lambda folder: rewrite(folder, {"v_head.weight": torch.zeros(1, 32)}),
                reward_kinds.sequence),
        "several reward heads: score.weight, v_head.weight"),
    "three verdicts of a step": (
        changed(lambda folder: rewrite(folder, {"score.weight": torch.zeros(3, 32),
                                                "score.bias": torch.zeros(3)}),
                reward_kinds.token_classes),
        "score.weight has 3 labels, and activation 'softmax' needs two"),
    "a tag that the tokenizer does not know": (
        changed(lambda folder: bytes_with().save_pretrained(folder), reward_kinds.process_head),
        "does not know the step tag"),
    "a step model that lacks a layer": (
        changed(without("layers.1.mlp"), reward_kinds.token_classes), "missing: layers.1.mlp"),
}  # fmt: skip


def damaged(name: str, base: Callable[[Path], str]) -> Callable[[Path], str]:
    """A checkpoint with the damage of that name."""
    return changed(DAMAGE[name][0], base)


def copied(source: str, folder: Path) -> Path:
    """A checkpoint to change."""
    shutil.copytree(source, folder)
    return folder
