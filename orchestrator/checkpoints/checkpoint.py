"""Making, loading and saving Hugging Face checkpoints: policies and reward models, as folders.

Everything downstream takes a folder or a hub name; nothing knows how small or large the model is.
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

from orchestrator.checkpoints.loading import CPU_ATTENTION, check_whole, load_whole
from orchestrator.checkpoints.model_configs import is_encoder, model_config
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

# Fields with which some architectures scale or cap their logits.
LOGIT_FIELDS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier",
                "output_logit_soft_cap")  # fmt: skip
NEW_HEAD = ("score.weight",)  # what a class has that its checkpoint's head is not read as
NO_LIMIT = 10**9
DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16,
}  # fmt: skip
# Encoders whose first position is the one behind their pad token's id: 514 places, 512 tokens.
COUNT_FROM_PAD = (
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


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
    """Loads a causal language model from a folder or hub name, safetensors only.

    Raises:
        ValueError: it is an encoder, or its weights are not exactly a causal language model's.
    """
    check_policy_weights(checkpoint)
    return load_whole(AutoModelForCausalLM, checkpoint, dtype)


def check_policy_weights(checkpoint: str) -> None:
    """Checks that ``load_policy`` takes a checkpoint; no weight is read.

    Raises:
        ValueError: as ``load_policy``.
    """
    config = read_config(checkpoint)
    if is_encoder(config):
        raise ValueError(
            f"{checkpoint}: a {config.get('model_type')}, an encoder, sees both ways and writes no"
            " text; valid: a causal language model"
        )
    check_whole(AutoModelForCausalLM, checkpoint)


def load_reward_model(
    checkpoint: str, dtype: torch.dtype = torch.float32, label: int | None = None
) -> PreTrainedModel:
    """Loads a sequence classifier as a model of one label, safetensors only.

    A head under another trainer's name (`reward_heads.py`) becomes the model's `score`, and so does
    the row ``label`` of a head of several labels.

    Raises:
        ValueError: there is no reward head among the weights, it has several labels and none is
            chosen, it has another width than the backbone, the backbone is not causal, or weights
            are missing, of other shapes or left over.
    """
    weights, head, may_lack = _reward_weights(checkpoint, label)
    model = load_whole(
        AutoModelForSequenceClassification, checkpoint, dtype, may_lack, num_labels=head.labels
    )
    _check_score(checkpoint, model, head)
    if not head.own or head.labels > 1:
        # From here on a plain one-label classifier, and saved as one.
        model.score = head_module(weights, head, label or 0, dtype).to(model.device)
        model.num_labels = model.config.num_labels = 1
    return model


def load_logit_model(
    checkpoint: str, token_id: int, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Loads a language model whose score is its logit of one token (Nemotron's reward models).

    Raises:
        ValueError: it is no language model, has no such token, or changes its logits.
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
            f"{checkpoint}: it changes its logits by {changed}: none is read as a score"
        )
    model.score = token_rows(full, [token_id])
    return model


def check_reward_weights(checkpoint: str, label: int | None = None) -> None:
    """Checks that ``load_reward_model`` takes a checkpoint; no weight is read.

    Raises:
        ValueError: as ``load_reward_model``.
    """
    _, head, may_lack = _reward_weights(checkpoint, label)
    model = check_whole(
        AutoModelForSequenceClassification, checkpoint, may_lack, num_labels=head.labels
    )
    if model is not None:
        _check_score(checkpoint, model, head)


def reward_model_from_policy(checkpoint: str, seed: int) -> PreTrainedModel:
    """A reward model on a policy's weights, its head zero: all first scores are equal.

    Raises:
        ValueError: the checkpoint is no policy, or its architecture has no sequence classifier.
    """
    check_policy_weights(checkpoint)
    torch.manual_seed(seed)
    model = load_whole(
        AutoModelForSequenceClassification, checkpoint, torch.float32, NEW_HEAD, num_labels=1
    )
    torch.nn.init.zeros_(model.score.weight)
    return model


def check_start(checkpoint: str) -> None:
    """Checks that ``reward_model_from_policy`` takes a checkpoint; no weight is read.

    Raises:
        ValueError: as ``reward_model_from_policy``.
    """
    check_policy_weights(checkpoint)
    check_whole(AutoModelForSequenceClassification, checkpoint, NEW_HEAD, num_labels=1)


def _reward_weights(
    checkpoint: str, label: int | None
) -> tuple[Weights, RewardHead, tuple[str, ...]]:
    """The weights, the head among them, and the weights that the model's class lacks then."""
    weights = Weights.of(checkpoint)
    head = find_head(weights)
    if head is None:
        raise ValueError(no_head(checkpoint))
    check_label(checkpoint, head.labels, label)
    return weights, head, () if head.own else NEW_HEAD


def _check_score(checkpoint: str, model: PreTrainedModel, head: RewardHead) -> None:
    if not hasattr(model, "score"):
        raise ValueError(
            f"{checkpoint}: a reward model needs a causal backbone and a `score` head; this one is"
            f" a {type(model).__name__}"
        )
    width = model.config.get_text_config().hidden_size
    if head.width != width:
        raise ValueError(
            f"{checkpoint}: {head.layers[0]}.weight reads {head.width} numbers, its backbone writes"
            f" {width}"
        )


class TextDoesNotFit(ValueError):
    """Texts that are empty or longer than an engine reads; ``rows`` are their numbers."""

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


def context_of(checkpoint: str) -> int:
    """Most tokens that a model reads at once; without a stated limit, a number past any text."""
    config = model_config(checkpoint).get_text_config()
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
