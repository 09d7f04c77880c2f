"""The parameters in a token's matrix products: the N of 2N FLOPs per token.

Computed from the shapes in the safetensors headers; no weights are loaded.
"""

import re
from math import prod

from orchestrator.checkpoints.files import JsonFile
from orchestrator.checkpoints.weights import Weights, read_config

# Embedding tables, by the names of common architectures. Token embeddings may be tied to the
# language-model head.
_TOKENS = re.compile(r"(^|\.)(embed_tokens|tok_embeddings|wte|word_embeddings|embed_in)\.weight$")
_POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|\w*embeddings?)\.weight$")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_EXPERTS = re.compile(r"\.experts\.")
# Config fields for the number of experts of a layer; a token uses `num_experts_per_tok` of them.
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def matrix_parameters(checkpoint: str, *, language_head: bool) -> int:
    """Return N of a checkpoint folder or hub name.

    Counts the entries of all matrices; of a layer's experts only the share that a token uses. Does
    not count embedding tables and vectors (norms, biases), which are not matrix products. Counts
    the language-model head, tied or not, if ``language_head`` says that logits are computed.

    Raises:
        ValueError: the checkpoint has no safetensors weights.
    """
    weights, active = Weights.of(checkpoint), _active_share(read_config(checkpoint))
    total, head, tokens = 0.0, 0, 0
    for name in weights.names:
        shape = weights.shape(name)
        if len(shape) < 2:
            continue
        if _HEAD.search(name):
            head = prod(shape)
        elif _TOKENS.search(name):
            tokens = prod(shape)
        elif not _POSITIONS.search(name):
            total += prod(shape) * (active if _EXPERTS.search(name) else 1.0)
    return round(total) + ((head or tokens) if language_head else 0)


def _active_share(config: JsonFile) -> float:
    """Return the share of a layer's experts that a token uses; 1 without experts."""
    text = config.get("text_config") or config
    count = next((text[name] for name in _EXPERT_COUNTS if text.get(name)), None)
    used = text.get("num_experts_per_tok")
    return float(used / count) if count and used else 1.0
