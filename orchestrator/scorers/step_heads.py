"""Step-tag reward models on their backbones: what reads a step's reward at its tag.

Three forms are public: a head of two layers (Qwen2.5-Math-PRM), two token classes (TRL), and a
language model that writes "+" or "-" at the tag (Math-Shepherd). A reward is the probability that
the step is right.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.loading import load_whole
from orchestrator.engines.model_configs import model_config
from orchestrator.engines.reward_heads import linear_layer
from orchestrator.engines.weights import Weights
from orchestrator.rewards.log_ratio import logit_cap
from orchestrator.scorers.detect import Form, nature_of
from orchestrator.scorers.steps import BLANK_LINE, LINE_END, check_delimiter
from orchestrator.scorers.tagged import TagFormat
from orchestrator.search.engines import Ids

QWEN_TAG, SHEPHERD_TAG, TRL_TAG = "<extra_0>", " ки", "\n"  # as the models were trained
RIGHT, WRONG = "+", "-"  # what Math-Shepherd's model writes at a tag
_LAYERS = ("score.0", "score.2", "score", "classifier")


class StepHead(torch.nn.Module):
    """Hidden states (N, k, D) to the probabilities (N, k) of the second of two labels.

    Args:
        layers: hidden states to two logits, (N, k, 2).
        cap: logits are softly capped at this, as Gemma 2 does; None caps nothing.
    """

    def __init__(self, layers: torch.nn.Module, cap: float | None = None) -> None:
        super().__init__()
        self.layers, self.cap = layers, cap

    def forward(self, hidden: Tensor) -> Tensor:
        """The probabilities, float32 or wider."""
        logits: Tensor = self.layers(hidden)
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        if logits.dtype != torch.float64:
            logits = logits.float()
        return logits.softmax(-1)[..., 1]


@dataclass(frozen=True)
class StepModel:
    """A loaded step-tag reward model, on its device and in evaluation mode.

    Attributes:
        model: the backbone, or a model on it.
        head: what reads a step's reward from a hidden state.
        form: how tags are written into a response.
    """

    model: PreTrainedModel
    head: StepHead
    form: TagFormat


def step_chat(checkpoint: str, fold_system: bool = True) -> Chat:
    """The tokenizer and the prompt's format of a step-tag reward model.

    Math-Shepherd's, of a language model without a chat template, is "question solution".
    """
    if nature_of(checkpoint).form != "language model":
        return load_chat(checkpoint, fold_system)
    return load_chat(checkpoint, fold_system, gap=" ")


def load_step_model(
    checkpoint: str, chat: Chat, delimiter: str | None, tag: str | None, device: str
) -> StepModel:
    """Loads a step-tag reward model; a delimiter or tag of None is the checkpoint's own.

    Raises:
        ValueError: the checkpoint is of none of the three forms, its weights do not fit, or its
            tokenizer does not know the tag.
    """
    nature = nature_of(checkpoint)
    if nature.form not in ("process head", "token classes", "language model"):
        raise ValueError(f"{checkpoint}: it has no step tags: it is {nature.what}")
    form = tag_format(checkpoint, chat, delimiter, tag)
    if nature.form == "language model":
        model, head = _language_model(checkpoint, chat)
    else:
        model, head = _two_labels(checkpoint)
    return StepModel(model.to(device).eval(), head.to(device).eval(), form)


def tag_format(checkpoint: str, chat: Chat, delimiter: str | None, tag: str | None) -> TagFormat:
    """How tags are written for a step-tag reward model; None is the checkpoint's own.

    Raises:
        ValueError: its tokenizer does not know the tag, or does not keep the delimiter.
    """
    form = nature_of(checkpoint).form
    tag_ids = _tag_ids(checkpoint, form, chat, tag)
    moved = form == "language model"
    if delimiter is None:
        used = _own_tag(form, chat) if tag is None else tag
        delimiter = LINE_END if moved else used if used.isspace() else BLANK_LINE
    check_delimiter(chat, delimiter)
    return TagFormat(tag_ids, delimiter, _behind_a_word(chat, delimiter), moved)


def check_step_layers(checkpoint: str) -> tuple[str, ...]:
    """The names of the layers of a head of two labels; their shapes fit, by the files' headers.

    Raises:
        ValueError: there are none, or they do not fit each other, the backbone or the two labels.
    """
    weights = Weights.of(checkpoint)
    names = tuple(name for name in _LAYERS if f"{name}.weight" in weights.names)
    if not names:
        raise ValueError(f"{checkpoint}: none of the layers {', '.join(_LAYERS)} among its weights")
    width = model_config(checkpoint).get_text_config().hidden_size
    for name in names:
        rows, *columns = weights.shape(f"{name}.weight")
        if len(columns) != 1:
            raise ValueError(f"{checkpoint}: {name} is no linear layer")
        if columns[0] != width:
            raise ValueError(f"{checkpoint}: {name}.weight reads {columns[0]} numbers, not {width}")
        width = rows
    if width != 2:
        raise ValueError(
            f"{checkpoint}: {names[-1]}.weight has {width} labels; wrong and right are two"
        )
    return names


def _two_labels(checkpoint: str) -> tuple[PreTrainedModel, StepHead]:
    """A backbone with a head of one or two layers and two labels."""
    names, weights = check_step_layers(checkpoint), Weights.of(checkpoint)
    model = load_whole(AutoModel, checkpoint, torch.float32)
    layers = [linear_layer(weights, name, model.dtype) for name in names]
    parts = layers if len(layers) == 1 else [layers[0], torch.nn.ReLU(), layers[1]]
    return model, StepHead(torch.nn.Sequential(*parts))


def _language_model(checkpoint: str, chat: Chat) -> tuple[PreTrainedModel, StepHead]:
    """A language model, its head cut down to the tokens for wrong and right."""
    model = load_whole(AutoModelForCausalLM, checkpoint, torch.float32)
    try:
        cap = logit_cap(model)
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from None
    full = model.get_output_embeddings()
    pair = [_verdict_id(checkpoint, chat, text) for text in (WRONG, RIGHT)]
    layer = torch.nn.Linear(full.in_features, 2, full.bias is not None, dtype=model.dtype)
    with torch.no_grad():
        layer.weight.copy_(full.weight[pair])
        if full.bias is not None:
            layer.bias.copy_(full.bias[pair])
    return model, StepHead(layer, cap)


def _own_tag(form: Form, chat: Chat) -> str:
    """The tag with which the public models of a form were trained."""
    if form == "language model":
        return SHEPHERD_TAG
    if form == "process head" or QWEN_TAG in chat.tokenizer.get_vocab():
        return QWEN_TAG
    return TRL_TAG


def _tag_ids(checkpoint: str, form: Form, chat: Chat, tag: str | None) -> Ids:
    """The tokens of a tag that was said, or of the public models' own, there a single one."""
    own = _own_tag(form, chat)
    if tag is not None:
        ids = chat.marker_ids(tag)
        known = bool(ids) and chat.tokenizer.decode(ids) in (tag, f" {tag}")
    else:
        ids = _behind_a_word(chat, own) if form == "language model" else chat.marker_ids(own)
        known = chat.tokenizer.decode(ids[-1:]) in (own, own.strip(" "), f" {own}")
    if not known:
        wanted = own.strip(" ") if tag is None else tag
        raise ValueError(
            f"{checkpoint}: its tokenizer does not know the step tag {wanted!r}; say the one that"
            " the model was trained with (step_tag)"
        )
    return ids


def _behind_a_word(chat: Chat, text: str) -> Ids:
    """The tokens of a text that goes on from a word; by itself it might get a space in front."""
    word, whole = chat.marker_ids("x"), chat.marker_ids(f"x{text}")
    return whole[len(word) :] if whole[: len(word)] == word else chat.marker_ids(text)


def _verdict_id(checkpoint: str, chat: Chat, text: str) -> int:
    """The token of "+" or "-" as a word of its own."""
    *_, found = chat.marker_ids(text) or (None,)
    if found is None or chat.text((found,)).strip() != text:
        raise ValueError(f"{checkpoint}: its tokenizer has no token {text!r} to judge a step with")
    return found
