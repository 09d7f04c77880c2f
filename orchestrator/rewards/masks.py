"""What each token of a packed row attends to, as the masks that transformers' backbones take."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.rewards.packed import Tokens, visible


def unpackable(model: PreTrainedModel) -> list[str]:
    """The kinds of a backbone's layers that look at tokens otherwise than a mask decides."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return sorted(kinds - {"full_attention", "sliding_attention"})


def additive_mask(
    model: PreTrainedModel, queries: Tokens, keys: Tokens
) -> Tensor | dict[str, Tensor]:
    """The additive mask (N, 1, Tq, Tk), or one a kind of layer where the backbone has several.

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
    # Without layer types a window is every layer's (Mistral), or stated but not used (Qwen2).
    used = window if not kinds and getattr(config, "use_sliding_window", True) else None
    return _additive(visible(queries, keys, used), model.dtype)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    # The backbone's own dtype, not autocast's: transformers adds it to the attention logits.
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
