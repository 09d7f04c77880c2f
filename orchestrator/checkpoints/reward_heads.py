"""Heads of reward models under the names that different trainers give them.

`score` is that of transformers, `regression_head` that of UltraRM and Eurus-RM; `v_head` (TRL),
`value_head` and `reward_head` are used by others. All are one linear layer from the last hidden
state to the reward, except `score.0` and `score.2` (Qwen2.5-Math-RM, INF-ORM): two layers with a
ReLU between them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.weights import Weights

HEADS = ("score", "regression_head", "v_head", "value_head", "reward_head")
NATIVE_HEAD = "score"
_WEIGHT = re.compile(rf"({'|'.join(HEADS)})(\.summary)?\.weight")


TWO_LAYERS = ("score.0", "score.2")


@dataclass(frozen=True)
class RewardHead:
    """The reward head of a checkpoint.

    Attributes:
        layers: names of its linear layers, one or two.
        labels: number of outputs.
        width: number of inputs.
        bias: whether its last layer has a bias.
    """

    layers: tuple[str, ...]
    labels: int
    width: int
    bias: bool

    @property
    def is_native(self) -> bool:
        """Whether it is one layer named `score` without a bias, with any number of labels.

        transformers' sequence classifiers have such a head.
        """
        return self.layers == (NATIVE_HEAD,) and not self.bias

    @property
    def is_trl_value_head(self) -> bool:
        """Whether it is named `v_head`, as TRL names value heads.

        These often score tokens of raw text, not answers.
        """
        return self.layers[0].startswith("v_head")


def find_head(weights: Weights) -> RewardHead | None:
    """Return the reward head among a checkpoint's weights, or None.

    Raises:
        ValueError: there are several, or the head is not a linear layer.
    """
    if all(f"{name}.weight" in weights.names for name in TWO_LAYERS):
        return _head(weights, TWO_LAYERS)
    names = sorted(name for name in weights.names if _WEIGHT.fullmatch(name))
    if not names:
        return None
    if len(names) > 1:
        raise ValueError(f"{weights.checkpoint}: several reward heads: {', '.join(names)}")
    return _head(weights, (names[0].removesuffix(".weight"),))


def _head(weights: Weights, layers: tuple[str, ...]) -> RewardHead:
    shapes = [weights.shape(f"{name}.weight") for name in layers]
    for name, shape in zip(layers, shapes, strict=True):
        if len(shape) != 2:
            raise ValueError(f"{weights.checkpoint}: {name}.weight {shape} is not a linear layer's")
    return RewardHead(layers, shapes[-1][0], shapes[0][1], f"{layers[-1]}.bias" in weights.names)


def head_module(
    weights: Weights, head: RewardHead, label: int, dtype: torch.dtype
) -> torch.nn.Module:
    """Return the head for one label as a module: hidden states (..., D) to scores (..., 1).

    Raises:
        ValueError: as ``linear_layer``.
    """
    *before, last = [linear_layer(weights, name, dtype) for name in head.layers]
    single = one_row(last, label)
    return torch.nn.Sequential(*before, torch.nn.ReLU(), single) if before else single


def no_head(checkpoint: str) -> str:
    """Return the error message for a checkpoint without a reward head."""
    names = ", ".join(HEADS)
    if (adapter := adapter_of(checkpoint)) is None:
        return f"{checkpoint}: no reward head ({names}) among its weights"
    return (
        f"{checkpoint}: no reward head ({names}) in the adapter or in its base {adapter.base}: the"
        " reward head would be random; valid: an adapter that was saved with its head"
        " (modules_to_save)"
    )


def check_label(checkpoint: str, labels: int, label: int | None) -> None:
    """Check that a label of a head is chosen and exists.

    Args:
        checkpoint: folder or hub name.
        labels: number of the head's labels.
        label: index of the score's label; None if not chosen.

    Raises:
        ValueError: none was chosen of several, or there is no such label.
    """
    valid = (
        f"valid: score_label from 0 to {labels - 1}"
        if labels > 1
        else "valid: no score_label, or 0"
    )
    if label is None:
        if labels > 1:
            raise ValueError(
                f"{checkpoint}: its head has {labels} labels, and which of them is the score is not"
                f" set; {valid}"
            )
    elif not 0 <= label < labels:
        many = f"{labels} labels" if labels > 1 else "one label"
        raise ValueError(f"{checkpoint}: score_label = {label}: its head has {many}; {valid}")


def one_row(layer: torch.nn.Linear, row: int) -> torch.nn.Linear:
    """Return a layer with one of a layer's outputs."""
    single = torch.nn.Linear(layer.in_features, 1, layer.bias is not None, dtype=layer.weight.dtype)
    with torch.no_grad():
        single.weight.copy_(layer.weight[row : row + 1])
        if layer.bias is not None:
            single.bias.copy_(layer.bias[row : row + 1])
    return single


def linear_layer(weights: Weights, name: str, dtype: torch.dtype) -> torch.nn.Linear:
    """Load a linear layer of a checkpoint: ``name.weight``, and ``name.bias`` if it exists.

    Raises:
        ValueError: the weight is not a matrix, or the bias does not fit it.
    """
    weight = weights.tensor(f"{name}.weight")
    bias = weights.tensor(f"{name}.bias") if f"{name}.bias" in weights.names else None
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError(f"{weights.checkpoint}: {name} is not a linear layer")
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def token_rows(full: torch.nn.Linear, token_ids: Sequence[int]) -> torch.nn.Linear:
    """Return a layer with the logits of some tokens only."""
    rows = list(token_ids)
    layer = torch.nn.Linear(
        full.in_features, len(rows), full.bias is not None, dtype=full.weight.dtype
    )
    with torch.no_grad():
        layer.weight.copy_(full.weight[rows])
        if full.bias is not None:
            layer.bias.copy_(full.bias[rows])
    return layer
