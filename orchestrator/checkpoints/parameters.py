"""How many parameters of a checkpoint take part in a token's matrix products: the N of 2N FLOPs.

Read from the shapes in the safetensors headers: no weight is loaded.
"""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from orchestrator.checkpoints.weights import Weights, read_config

# Tables that are looked up in, by the names of the common architectures; the first kind may be
# the language-model head too.
_TOKENS = re.compile(r"(^|\.)(embed_tokens|tok_embeddings|wte|word_embeddings|embed_in)\.weight$")
_LOOKED_UP = re.compile(r"(^|\.)(wpe|embed_positions|\w*embeddings?)\.weight$")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_EXPERTS = re.compile(r"\.experts\.")
# What configs call the number of experts of a layer; a token goes through `num_experts_per_tok`.
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def matrix_parameters(checkpoint: str, *, language_head: bool) -> int:
    """N of a checkpoint folder or hub name.

    Counted are the entries of all matrices; of a layer's experts the share that a token goes
    through. Not counted are embedding tables, in which a token is looked up, and vectors (norms,
    biases), which are no matrix products. A language-model head counts where ``language_head``
    says that its logits are computed, a tied one (the token embeddings once more) too.

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
        elif not _LOOKED_UP.search(name):
            total += prod(shape) * (active if _EXPERTS.search(name) else 1.0)
    return round(total) + ((head or tokens) if language_head else 0)


def _active_share(config: Mapping[str, Any]) -> float:
    """The share of a layer's experts that a token goes through; 1 without experts."""
    text = config.get("text_config") or config
    count = next((text[name] for name in _EXPERT_COUNTS if text.get(name)), None)
    used = text.get("num_experts_per_tok")
    return float(used / count) if count and used else 1.0
