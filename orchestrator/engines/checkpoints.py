"""Making, loading and saving Hugging Face checkpoints: policies and reward models, as folders.

Everything downstream takes a folder or a hub name; nothing knows how small or large the model is.
"""

from pathlib import Path
from typing import Any

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

# With the small models of a CPU run, plain attention is faster than SDPA, in training by 1.8 times.
CPU_ATTENTION = "eager"
NO_LIMIT = 10**9


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

    Raises:
        ValueError: it has more than one label, or no causal backbone with a `score` head.
    """
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, **_loading(dtype))
    if model.config.num_labels != 1 or not hasattr(model, "score"):
        raise ValueError(
            f"{checkpoint}: a reward model needs a causal backbone and a `score` head of one label;"
            f" this one is a {type(model).__name__} with {model.config.num_labels} labels"
        )
    return model


def reward_model_from_policy(checkpoint: str, seed: int) -> PreTrainedModel:
    """A reward model on a policy's weights, its head zero: all first scores are equal."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, num_labels=1, **_loading(torch.float32)
    )
    torch.nn.init.zeros_(model.score.weight)
    return model


def context_of(checkpoint: str) -> int:
    """Most tokens that a model reads at once; without a stated limit, a number past any text."""
    config = AutoConfig.from_pretrained(checkpoint).get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or NO_LIMIT)


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
    if not torch.cuda.is_available():
        options["attn_implementation"] = CPU_ATTENTION
    return options
