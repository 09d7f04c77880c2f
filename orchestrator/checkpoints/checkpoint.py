"""Creating, loading and saving Hugging Face checkpoints of policies and reward models.

A checkpoint is a folder or a hub name. The code is the same for models of any size.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from orchestrator.checkpoints.loading import CPU_ATTENTION, check_weights, load_model
from orchestrator.checkpoints.model_configs import is_encoder, model_config
from orchestrator.checkpoints.permissions import share_like_folder
from orchestrator.checkpoints.reward_heads import (
    RewardHead,
    check_label,
    find_head,
    head_module,
    no_head,
    token_rows,
)
from orchestrator.checkpoints.weights import Weights, read_config
from orchestrator.choices import Dtype

# Config fields by which some architectures scale or cap their logits.
LOGIT_FIELDS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier",
                "output_logit_soft_cap")  # fmt: skip
NEW_HEAD = ("score.weight",)  # missing in the checkpoint if its head has another name
NO_LIMIT = 10**9
DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16,
}  # fmt: skip
# Encoders whose positions start after their pad token's id: 514 embeddings, 512 tokens.
COUNT_FROM_PAD = (
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


def new_policy(
    tokenizer: PreTrainedTokenizerBase, architecture: dict[str, int], seed: int
) -> PreTrainedModel:
    """Create a Llama policy with random weights.

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
    """Load a causal language model from a folder or hub name, safetensors only.

    Raises:
        ValueError: it is an encoder, or its weights are not exactly a causal language model's.
    """
    _check_not_encoder(checkpoint)
    return load_model(AutoModelForCausalLM, checkpoint, dtype)


def check_policy_weights(checkpoint: str) -> None:
    """Check that ``load_policy`` accepts a checkpoint, without reading weights.

    Raises:
        ValueError: as ``load_policy``.
    """
    _check_not_encoder(checkpoint)
    check_weights(AutoModelForCausalLM, checkpoint)


def _check_not_encoder(checkpoint: str) -> None:
    config = read_config(checkpoint)
    if is_encoder(config):
        raise ValueError(
            f"{checkpoint}: a {config.get('model_type')}, an encoder, attends in both directions"
            " and generates no text; valid: a causal language model"
        )


def load_reward_model(
    checkpoint: str, dtype: torch.dtype = torch.float32, label: int | None = None
) -> PreTrainedModel:
    """Load a sequence classifier as a model of one label, safetensors only.

    The model's `score` is the head under any trainer's name (`reward_heads.py`), or the row
    ``label`` of a head of several labels.

    Raises:
        ValueError: there is no reward head among the weights, it has several labels and none is
            chosen, its width is not the backbone's, the backbone is not causal, or weights are
            missing, unexpected or of other shapes.
    """
    weights, head, may_lack = _reward_weights(checkpoint, label)
    model = load_model(
        AutoModelForSequenceClassification, checkpoint, dtype, may_lack, num_labels=head.labels
    )
    _check_score(checkpoint, model, head)
    if not head.is_native or head.labels > 1:
        # The model is now a one-label classifier, and is saved as one.
        model.score = head_module(weights, head, label or 0, dtype).to(model.device)
        model.num_labels = model.config.num_labels = 1
    return model


def load_logit_model(
    checkpoint: str, token_id: int, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Load a language model whose score is its logit of one token (Nemotron's reward models).

    Raises:
        ValueError: it is not a language model, has no such token, or transforms its logits.
    """
    model = load_policy(checkpoint, dtype)
    full = model.get_output_embeddings()
    if not 0 <= token_id < full.out_features:
        raise ValueError(
            f"{checkpoint}: score_token = {token_id}: valid: an id under {full.out_features}"
        )
    config = model.config.get_text_config()
    if changed := [name for name in LOGIT_FIELDS if getattr(config, name, None) not in (None, 1.0)]:
        raise ValueError(
            f"{checkpoint}: it transforms its logits by {changed}, so a logit cannot be a score;"
            " valid: a model without these config fields"
        )
    model.score = token_rows(full, [token_id])
    return model


def check_reward_weights(checkpoint: str, label: int | None = None) -> None:
    """Check that ``load_reward_model`` accepts a checkpoint, without reading weights.

    Raises:
        ValueError: as ``load_reward_model``.
    """
    _, head, may_lack = _reward_weights(checkpoint, label)
    model = check_weights(
        AutoModelForSequenceClassification, checkpoint, may_lack, num_labels=head.labels
    )
    if model is not None:
        _check_score(checkpoint, model, head)


def reward_model_from_policy(checkpoint: str, seed: int) -> PreTrainedModel:
    """Create a reward model from a policy's weights with a zero head: all scores are equal.

    Raises:
        ValueError: the checkpoint is not a policy, or its architecture has no sequence classifier.
    """
    check_policy_weights(checkpoint)
    torch.manual_seed(seed)
    model = load_model(
        AutoModelForSequenceClassification, checkpoint, torch.float32, NEW_HEAD, num_labels=1
    )
    torch.nn.init.zeros_(model.score.weight)
    return model


def check_reward_model_from_policy(checkpoint: str) -> None:
    """Check that ``reward_model_from_policy`` accepts a checkpoint, without reading weights.

    Raises:
        ValueError: as ``reward_model_from_policy``.
    """
    check_policy_weights(checkpoint)
    check_weights(AutoModelForSequenceClassification, checkpoint, NEW_HEAD, num_labels=1)


def _reward_weights(
    checkpoint: str, label: int | None
) -> tuple[Weights, RewardHead, tuple[str, ...]]:
    """Return the weights, their head, and the class's weights that the checkpoint may lack."""
    weights = Weights.of(checkpoint)
    head = find_head(weights)
    if head is None:
        raise ValueError(no_head(checkpoint))
    check_label(checkpoint, head.labels, label)
    return weights, head, () if head.is_native else NEW_HEAD


def _check_score(checkpoint: str, model: PreTrainedModel, head: RewardHead) -> None:
    if not hasattr(model, "score"):
        raise ValueError(
            f"{checkpoint}: a reward model needs a causal backbone and a `score` head; this one is"
            f" a {type(model).__name__}"
        )
    width = model.config.get_text_config().hidden_size
    if head.width != width:
        raise ValueError(
            f"{checkpoint}: {head.layers[0]}.weight has {head.width} inputs, but the hidden size of"
            f" the backbone is {width}"
        )


def context_of(checkpoint: str) -> int:
    """Return the context length of a model in tokens; NO_LIMIT if its config states none."""
    config = model_config(checkpoint).get_text_config()
    limit = int(getattr(config, "max_position_embeddings", None) or NO_LIMIT)
    reserved = config.pad_token_id + 1 if config.model_type in COUNT_FROM_PAD else 0
    return limit - reserved


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state: dict[str, Tensor] | None = None,
) -> None:
    """Write safetensors, config and tokenizer; ``state`` replaces the model's state dict."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
    share_like_folder(folder)
