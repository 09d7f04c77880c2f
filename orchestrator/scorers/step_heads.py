"""Process reward models on their backbones, and the heads that read the reward of a step.

A head of one or two layers (Qwen2.5-Math-PRM, TRL: two labels; Skywork-o1-Open-PRM: one), or a
language model's logits of the tokens that say right and wrong (Math-Shepherd, RLHFlow, Granite).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from orchestrator.checkpoints.loading import load_model
from orchestrator.checkpoints.model_configs import model_config
from orchestrator.checkpoints.reward_heads import linear_layer, token_rows
from orchestrator.checkpoints.weights import Weights
from orchestrator.conversations.chat import Chat
from orchestrator.rewards.log_ratio import logit_cap
from orchestrator.scorers.formats import StepFormat
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.step_formats import step_format, tag_format, verdict_ids
from orchestrator.scorers.tagged import TagFormat

_LAYERS = ("score.0", "score.2", "v_head.summary", "v_head", "score", "classifier")
STATES_PER_CHUNK = 256  # hidden states whose logits of a full vocabulary are held at once


class StepHead(torch.nn.Module):
    """Maps hidden states (N, k, D) to rewards (N, k).

    Args:
        layers: maps hidden states to logits of one label, two labels or a vocabulary.
        read: maps logits (N, k, L), float32 or wider, to rewards.
        cap: soft cap of the logits, as in Gemma 2; None is no cap.
    """

    def __init__(self, layers: torch.nn.Module, read: "Readout", cap: float | None = None) -> None:
        super().__init__()
        self.layers, self.read, self.cap = layers, read, cap

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the rewards, float32 or wider."""
        states = hidden.flatten(0, -2).split(STATES_PER_CHUNK)
        return torch.cat([self._rewards(chunk) for chunk in states]).view(hidden.shape[:-1])

    def _rewards(self, states: Tensor) -> Tensor:
        logits: Tensor = self.layers(states)
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return self.read.rewards(logits if logits.dtype == torch.float64 else logits.float())


@dataclass(frozen=True)
class Readout:
    """Maps logits (..., L) to rewards (...).

    Attributes:
        activation: that of the format.
        index: index of the logit that is read.
    """

    activation: str
    index: int

    def rewards(self, logits: Tensor) -> Tensor:
        """Return probabilities, or the logits themselves."""
        if self.activation == "softmax":
            return logits.softmax(-1)[..., self.index]
        chosen = logits[..., self.index]
        return chosen.sigmoid() if self.activation == "sigmoid" else chosen


@dataclass(frozen=True)
class StepModel:
    """A loaded process reward model, on its device and in evaluation mode.

    Attributes:
        model: the backbone, or a model on it.
        head: reads the reward of a step from a hidden state.
        tag_format: how tags are written into a response.
        bounded: whether rewards are probabilities.
    """

    model: PreTrainedModel
    head: StepHead
    tag_format: TagFormat
    bounded: bool


def load_step_model(spec: ScorerSpec, chat: Chat, device: str) -> StepModel:
    """Load a process reward model.

    Raises:
        ValueError: the checkpoint has no step tags, its weights do not fit, or its tokenizer does
            not know the tag.
    """
    fmt, tags = step_format(spec), tag_format(spec, chat)
    if fmt.right is not None:
        model, head = _language_model(spec, chat)
    else:
        model, head = _labels(spec.checkpoint, fmt)
    bounded = fmt.activation != "none"
    return StepModel(model.to(device).eval(), head.to(device).eval(), tags, bounded)


def check_step_layers(checkpoint: str, fmt: StepFormat) -> tuple[str, ...]:
    """Return the names of a head's layers after checking their shapes in the headers of the files.

    Raises:
        ValueError: there are none, or they do not fit each other, the backbone or the labels.
    """
    weights = Weights.of(checkpoint)
    names = tuple(name for name in _LAYERS if f"{name}.weight" in weights.names)
    if not names:
        raise ValueError(f"{checkpoint}: none of the layers {', '.join(_LAYERS)} among its weights")
    width = model_config(checkpoint).get_text_config().hidden_size
    for name in names:
        rows, *columns = weights.shape(f"{name}.weight")
        if len(columns) != 1:
            raise ValueError(f"{checkpoint}: {name} is not a linear layer")
        if columns[0] != width:
            raise ValueError(f"{checkpoint}: {name}.weight has {columns[0]} inputs, not {width}")
        width = rows
    if fmt.activation == "softmax" and width != 2:
        raise ValueError(
            f"{checkpoint}: {names[-1]}.weight has {width} labels, and activation 'softmax' needs"
            " two, wrong and right; valid: sigmoid or none for one label"
        )
    if fmt.activation != "softmax" and width != 1:
        raise ValueError(
            f"{checkpoint}: {names[-1]}.weight has {width} labels, and activation"
            f" {fmt.activation!r} needs one; valid: softmax for two labels"
        )
    return names


def _labels(checkpoint: str, fmt: StepFormat) -> tuple[PreTrainedModel, StepHead]:
    """Load a backbone with a head of one or two layers."""
    names, weights = check_step_layers(checkpoint, fmt), Weights.of(checkpoint)
    model = load_model(AutoModel, checkpoint, torch.float32)
    layers = [linear_layer(weights, name, model.dtype) for name in names]
    parts = layers if len(layers) == 1 else [layers[0], torch.nn.ReLU(), layers[1]]
    index = 1 if fmt.activation == "softmax" else 0
    return model, StepHead(torch.nn.Sequential(*parts), Readout(fmt.activation, index))


def _language_model(spec: ScorerSpec, chat: Chat) -> tuple[PreTrainedModel, StepHead]:
    """Load a language model; of its head, only the rows of the tokens that are read."""
    model = load_model(AutoModelForCausalLM, spec.checkpoint, torch.float32)
    try:
        cap = logit_cap(model)
    except ValueError as error:
        raise ValueError(f"{spec.checkpoint}: {error}") from None
    right, wrong = verdict_ids(spec, chat)
    full = model.get_output_embeddings()
    if wrong is None:
        return model, StepHead(full, Readout("softmax", right), cap)
    return model, StepHead(token_rows(full, [wrong, right]), Readout("softmax", 1), cap)
