"""Making, loading and saving Hugging Face checkpoints: policies and reward models, as folders.

Everything downstream takes a folder or a hub name; nothing knows how small or large the model is.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from orchestrator.engines.reward_heads import find_head, linear_layer, no_head
from orchestrator.engines.weights import Weights

# With the small models of a CPU run, plain attention is faster than SDPA, in training by 1.8 times.
CPU_ATTENTION = "eager"
NO_LIMIT = 10**9
Dtype = Literal["float32", "float64", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16,
}  # fmt: skip
# Encoders whose first position is the one behind their pad token's id: 514 places, 512 tokens.
COUNT_FROM_PAD = (
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip
NAMED = 5  # weights that an error names, at most


def new_policy(
    tokenizer: PreTrainedTokenizerBase, architecture: dict[str, int], seed: int
) -> PreTrainedModel:
    """A Llama policy with random weights.

    ``architecture`` holds LlamaConfig fields (hidden_size, num_hidden_layers, ...); vocabulary and
    special ids come from the tokenizer. Embeddings are tied.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        **architecture,
    )
    config._attn_implementation = CPU_ATTENTION
    return LlamaForCausalLM(config)


def load_policy(checkpoint: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Loads a causal language model from a folder or hub name, safetensors only."""
    return AutoModelForCausalLM.from_pretrained(checkpoint, **_loading(dtype))


def load_reward_model(checkpoint: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Loads a one-label sequence classifier from a folder or hub name, safetensors only.

    A head under another trainer's name (`reward_heads.py`) becomes the model's `score`.

    Raises:
        ValueError: there is no reward head among the weights, it has more than one label or
            another width than the backbone, the backbone is not causal, or weights are missing.
    """
    weights = Weights.of(checkpoint)
    head = find_head(weights)
    if head is None:
        raise ValueError(no_head(checkpoint))
    model = load_whole(
        AutoModelForSequenceClassification,
        checkpoint,
        dtype,
        may_lack=() if head.own else ("score.weight",),
        num_labels=head.labels,
    )
    if head.labels != 1 or not hasattr(model, "score"):
        raise ValueError(
            f"{checkpoint}: a reward model needs a causal backbone and a `score` head of one label;"
            f" this one is a {type(model).__name__} with {head.labels} labels"
        )
    width = model.config.get_text_config().hidden_size
    if head.width != width:
        raise ValueError(
            f"{checkpoint}: {head.name}.weight reads {head.width} numbers, its backbone writes"
            f" {width}"
        )
    if not head.own:
        # From here on a plain one-label classifier, and saved as one.
        model.score = linear_layer(weights, head.name, dtype).to(model.device)
    return model


def load_whole(
    auto: Any,
    checkpoint: str,
    dtype: torch.dtype,
    may_lack: Collection[str] = (),
    **options: Any,
) -> PreTrainedModel:
    """Loads a model of one of transformers' auto classes whose weights are all there.

    transformers would make up what is missing, at random, and warn. ``may_lack`` names weights that
    the caller sets.

    Raises:
        ValueError: weights are missing or have other shapes than the config says.
    """
    model, info = auto.from_pretrained(
        checkpoint,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **_loading(dtype),
        **options,
    )
    faults = []
    if missing := sorted(set(info["missing_keys"]) - set(may_lack)):
        faults.append(f"missing are {_some(missing)}")
    if wrong := sorted(name for name, *_ in info["mismatched_keys"]):
        faults.append(f"of another shape are {_some(wrong)}")
    if faults:
        kind = type(model).__name__
        raise ValueError(f"{checkpoint}: its weights are no {kind}'s: {'; '.join(faults)}")
    found: PreTrainedModel = model
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def reward_model_from_policy(checkpoint: str, seed: int) -> PreTrainedModel:
    """A reward model on a policy's weights, its head zero: all first scores are equal."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, num_labels=1, **_loading(torch.float32)
    )
    torch.nn.init.zeros_(model.score.weight)
    return model


class TextDoesNotFit(ValueError):
    """Texts that are empty or longer than an engine reads; ``rows`` are their numbers."""

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


def context_of(checkpoint: str) -> int:
    """Most tokens that a model reads at once; without a stated limit, a number past any text."""
    config = AutoConfig.from_pretrained(checkpoint).get_text_config()
    limit = int(getattr(config, "max_position_embeddings", None) or NO_LIMIT)
    taken = config.pad_token_id + 1 if config.model_type in COUNT_FROM_PAD else 0
    return limit - taken


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state: dict[str, Tensor] | None = None,
) -> None:
    """Writes safetensors, config and tokenizer; ``state`` replaces the model's own state dict."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)


def _loading(dtype: torch.dtype) -> dict[str, Any]:
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    # Plain attention takes its softmax in float32, whatever the weights are in.
    if not torch.cuda.is_available() and dtype != torch.float64:
        options["attn_implementation"] = CPU_ATTENTION
    return options
