"""Attention masks of packed sequences, in the form that transformers' backbones take."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.rewards.packed import Tokens, visible


def unpackable(model: PreTrainedModel) -> list[str]:
    """Return the kinds of a backbone's layers whose attention does not depend on the mask alone."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return sorted(kinds - {"full_attention", "sliding_attention"})


def additive_mask(
    model: PreTrainedModel, queries: Tokens, keys: Tokens
) -> Tensor | dict[str, Tensor]:
    """Return the additive mask (N, 1, Tq, Tk), or one per kind of layer if there are several.

    Raises:
        ValueError: the backbone has layers of another kind than full or sliding attention.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if unknown := unpackable(model):
        raise ValueError(
            f"{config.model_type}: layers of kind {', '.join(unknown)} cannot be packed;"
            " only full_attention and sliding_attention can"
        )
    if "sliding_attention" in kinds:
        windows = {"full_attention": None, "sliding_attention": window}
        return {k: _additive(visible(queries, keys, windows[k]), model.dtype) for k in kinds}
    # Without layer types a window applies to all layers (Mistral), or is not used (Qwen2).
    applied = window if not kinds and getattr(config, "use_sliding_window", True) else None
    return _additive(visible(queries, keys, applied), model.dtype)


def _additive(visible_keys: Tensor, dtype: torch.dtype) -> Tensor:
    # In the backbone's dtype, not autocast's: transformers adds it to the attention logits.
    mask = torch.zeros(visible_keys.shape, dtype=dtype, device=visible_keys.device)
    return mask.masked_fill_(~visible_keys, torch.finfo(dtype).min)[:, None]
