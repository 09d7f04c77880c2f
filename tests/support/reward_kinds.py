"""Tiny checkpoints of every scorer kind, written as the makers of public models write them.

The weights are random, large enough that scores differ from prefix to prefix.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2TokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForTokenClassification,
    Qwen2Model,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizerFast,
)

from orchestrator.conversations.tokenizers import byte_pair_tokenizer
from orchestrator.scorers.kind import SCORER_KINDS
from orchestrator.scorers.spec import ScorerSpec

WIDTH = 32
SIZES = {
    "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 256, "initializer_range": 0.3,
}  # fmt: skip
QUESTION = "what is 2 and 3 ?"
STEPS = ("first add 2 and 3 .\n\n", "that is 5 .\n\n", "so the answer is 5 .")
WORDS = sorted({word for text in (QUESTION, *STEPS) for word in text.split()})


def bytes_with(*special: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a chat template, and further special tokens."""
    tokenizer = byte_pair_tokenizer([QUESTION, "".join(STEPS)] * 3, 300)
    tokenizer.add_tokens(list(special), special_tokens=True)
    return tokenizer


def sentence_piece(*pieces: str) -> PreTrainedTokenizerFast:
    """As Llama 2's: spaces are underscores, unknown characters bytes, no template, a BOS."""
    letters = sorted({c for c in "".join((QUESTION, *STEPS)) + "HumanAssistant:" if c > " "})
    whole = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", *letters]
    whole += [f"▁{word}" for word in WORDS if len(word) > 1]
    whole += [piece for piece in pieces if piece not in whole]
    scores = [-float(n) if n < 259 else -8.0 - n / 1000 for n in range(len(whole))]
    core = Tokenizer(models.Unigram(list(zip(whole, scores, strict=True)), 0, True))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )  # fmt: skip
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def sequence(folder: Path) -> str:
    """Transformers' own one-label classifier."""
    tokenizer = bytes_with()
    model = _seeded(LlamaForSequenceClassification, _llama(tokenizer, num_labels=1))
    return _saved(folder, tokenizer, model)


def ultra_rm(folder: Path) -> str:
    """UltraRM: its own architecture name, and `regression_head.weight` without a bias."""
    tokenizer = sentence_piece()
    model = _seeded(LlamaForCausalLM, _llama(tokenizer))
    _saved(folder, tokenizer, model)
    rewrite(folder, {"regression_head.weight": _normal(1, WIDTH)}, drop=("lm_head.weight",))
    return renamed(folder, "LlamaRewardModel")


def value_head(folder: Path, name: str = "v_head.summary") -> str:
    """TRL's language model with a value head: a linear layer with a bias beside `lm_head`."""
    tokenizer = bytes_with()
    _saved(folder, tokenizer, _seeded(LlamaForCausalLM, _llama(tokenizer)))
    rewrite(folder, {f"{name}.weight": _normal(1, WIDTH), f"{name}.bias": torch.tensor([0.7])})
    return str(folder)


def process_head(
    folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, llama: bool = False
) -> str:
    """Qwen2.5-Math-PRM: a head of two layers, code of its own that nobody may run, shards."""
    tokenizer = tokenizer or bytes_with("<extra_0>")
    # AutoTokenizer makes any tokenizer of a Qwen2 model a byte-level BPE: no words there.
    kinds = (LlamaModel, _llama) if llama else (Qwen2Model, _qwen2)
    backbone = _seeded(kinds[0], kinds[1](tokenizer))
    _saved(folder, tokenizer, backbone)
    weights = {f"model.{name}": value for name, value in load_file(_file(folder)).items()}
    head = {
        "score.0.weight": _normal(WIDTH, WIDTH), "score.0.bias": _normal(WIDTH),
        "score.2.weight": 0.1 * _normal(2, WIDTH), "score.2.bias": _normal(2),
    }  # fmt: skip
    _file(folder).unlink()
    shards = {"model-00001-of-00002.safetensors": weights, "model-00002-of-00002.safetensors": head}
    for name, tensors in shards.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    index = {key: name for name, tensors in shards.items() for key in tensors}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    (folder / "modeling_own.py").write_text("raise RuntimeError('remote code ran')\n")
    return renamed(
        folder,
        "Qwen2ForProcessRewardModel",
        auto_map={"AutoConfig": "modeling_own.Own", "AutoModel": "modeling_own.Own"},
    )


def token_classes(
    folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, llama: bool = False
) -> str:
    """TRL's process reward model: two token classes, a line end behind every step."""
    tokenizer = tokenizer or bytes_with()
    if llama:
        return _saved(folder, tokenizer, _seeded(LlamaForTokenClassification, _llama(tokenizer)))
    return _saved(folder, tokenizer, _seeded(Qwen2ForTokenClassification, _qwen2(tokenizer)))


def shepherd(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> str:
    """Math-Shepherd: a language model, "+" or "-" behind the tag "ки"."""
    tokenizer = tokenizer or sentence_piece("▁ки", "▁+", "▁-")
    return _saved(folder, tokenizer, _seeded(LlamaForCausalLM, _llama(tokenizer)))


def deberta(folder: Path) -> str:
    """DeBERTa-v3: relative positions only, pieces of a sentence."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "▁"]
    vocabulary = [*((token, 0.0) for token in special), *((f"▁{word}", -2.0) for word in WORDS)]
    tokenizer = DebertaV2TokenizerFast(vocab=vocabulary, unk_id=3)
    config = DebertaV2Config(
        vocab_size=len(tokenizer), pad_token_id=0, type_vocab_size=0, num_labels=1,
        relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"],
        position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True, **SIZES,
    )  # fmt: skip
    return _saved(folder, tokenizer, _seeded(DebertaV2ForSequenceClassification, config))


def bert(folder: Path) -> str:
    """BERT: two types of tokens, and no end-of-sequence token."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizerFast(vocab={word: n for n, word in enumerate(words)})
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=0, num_labels=1, **SIZES)
    return _saved(folder, tokenizer, _seeded(BertForSequenceClassification, config))


def roberta(folder: Path) -> str:
    """RoBERTa: two separators between the texts, positions counted from the pad token's id."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", "Ċ", *sorted(set("".join(WORDS)))]
    tokenizer = RobertaTokenizerFast(vocab={word: n for n, word in enumerate(words)}, merges=[])
    config = RobertaConfig(
        vocab_size=len(tokenizer), pad_token_id=1, type_vocab_size=1, num_labels=1, **SIZES
    )
    return _saved(folder, tokenizer, _seeded(RobertaForSequenceClassification, config))


MAKERS: dict[str, Callable[..., str]] = {
    maker.__name__: maker
    for maker in (
        sequence, ultra_rm, value_head, deberta, bert, roberta, process_head, token_classes,
        shepherd,
    )
}  # fmt: skip


def language_model(folder: Path, seed: int = 5) -> str:
    """A language model with a byte-level tokenizer."""
    tokenizer = bytes_with()
    return _saved(folder, tokenizer, _seeded(LlamaForCausalLM, _llama(tokenizer), seed))


def log_ratio(folder: Path) -> str:
    """A language model, and its base model in a folder within."""
    language_model(folder / BASE, seed=6)
    return language_model(folder)


BASE = "base"
PLUGIN = Path(__file__).resolve().parents[1] / "plugin_package"


@dataclass(frozen=True)
class Example:
    """How a tiny checkpoint of a scorer kind is made and scored.

    Attributes:
        kind: name of the scorer kind.
        make: writes the checkpoint into a folder and returns its path.
        fields: what its spec has beside the checkpoint.
        adds_end: whether a finished response scores otherwise than the same text unfinished.
        by_plugin: whether the example plug-in defines the kind.
    """

    kind: str
    make: Callable[[Path], str]
    fields: Mapping[str, Any] = field(default_factory=dict)
    adds_end: bool = False
    by_plugin: bool = False

    def spec(self, checkpoint: str) -> ScorerSpec:
        """The spec of a checkpoint that ``make`` wrote."""
        base = str(Path(checkpoint) / BASE) if SCORER_KINDS[self.kind].needs_base else None
        return ScorerSpec(checkpoint, base=base, **self.fields)


# At least one for every kind of the registry: tests/contracts/test_scorer_kinds.py.
EXAMPLES = {
    "sequence": Example("sequence", sequence),
    "ultra_rm": Example("sequence", ultra_rm),
    "value_head": Example("sequence", value_head, {"kind": "sequence"}),
    "deberta": Example("encoder", deberta),
    "bert": Example("encoder", bert),
    "roberta": Example("encoder", roberta),
    "process_head": Example("step_tag", process_head),
    # A blank line, so that the same steps serve all.
    "token_classes": Example("step_tag", token_classes, {"step_tag": "\n\n"}),
    "shepherd": Example("step_tag", shepherd, {"kind": "step_tag"}),
    "log_ratio": Example("log_ratio", log_ratio, {"beta": 0.5}, adds_end=True),
    "likelihood": Example(
        "likelihood", language_model, {"kind": "likelihood", "options": {"temperature": 2.0}},
        by_plugin=True,
    ),
}  # fmt: skip


@contextmanager
def plugin_installed() -> Iterator[None]:
    """Registers the scorer kind of the example plug-in, as its entry point does."""
    list(SCORER_KINDS)  # the built-in kinds first
    sys.path.insert(0, str(PLUGIN))
    try:
        from example_plugin.scorer import Likelihood

        SCORER_KINDS._components.setdefault(Likelihood.name, Likelihood)
        yield
    finally:
        sys.path.remove(str(PLUGIN))
        SCORER_KINDS._components.pop("likelihood", None)


def rewrite(folder: Path, add: dict[str, torch.Tensor], drop: tuple[str, ...] = ()) -> None:
    """Adds and drops weights in a checkpoint of one file."""
    weights = {k: v for k, v in load_file(_file(folder)).items() if k not in drop}
    save_file({**weights, **add}, _file(folder), metadata={"format": "pt"})


def renamed(folder: Path, architecture: str, **fields: object) -> str:
    """Writes another architecture's name, and further fields, into a checkpoint's config."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), "architectures": [architecture], **fields}
    file.write_text(json.dumps(config))
    return str(folder)


def spoilt(folder: Path) -> None:
    """Makes the first column of every weight of the head NaN."""
    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        for name, value in weights.items():
            if "score" in name or "head" in name or "classifier" in name:
                value[..., 0] = float("nan")
        save_file(weights, file, metadata={"format": "pt"})


def _llama(tokenizer: PreTrainedTokenizerFast, **fields: int) -> LlamaConfig:
    return LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **SIZES, **fields)


def _qwen2(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    return Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **SIZES)


def _seeded(kind: type[PreTrainedModel], config: object, seed: int = 5) -> PreTrainedModel:
    torch.manual_seed(seed)
    return kind(config).eval()


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def _saved(folder: Path, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert len(AutoTokenizer.from_pretrained(folder)) == len(tokenizer)
    return str(folder)


def _file(folder: Path) -> Path:
    return folder / "model.safetensors"
