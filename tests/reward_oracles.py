"""Scores of the tiny reward models by transformers called by hand, as each model's makers say.

One function a kind: a checkpoint and the tokens of y_<t to the rewards of its steps; a kind that
knows no steps gives one reward.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from reward_kinds import QUESTION, STEPS
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForCausalLM,
    LlamaModel,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.search.engines import Ids

USER = [{"role": "user", "content": QUESTION}]


def tokens(checkpoint: str, y: Ids) -> torch.Tensor:
    chat = load_chat(checkpoint)
    return torch.tensor([chat.prompt_ids(USER) + y + chat.closing_ids])


def sequence(checkpoint: str, y: Ids) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    return [float(model(tokens(checkpoint, y)).logits)]


def ultra_rm(checkpoint: str, y: Ids) -> list[float]:
    """The head at the last token of the text that the model's card writes."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    text = f"Human: {QUESTION}\n\nAssistant: {tokenizer.decode(y)}"
    states = LlamaModel.from_pretrained(checkpoint).eval()(**tokenizer(text, return_tensors="pt"))
    head = load_file(Path(checkpoint) / "model.safetensors")["regression_head.weight"]
    return [float(states.last_hidden_state[0, -1] @ head[0])]


def value_head(checkpoint: str, y: Ids) -> list[float]:
    """A language model's last hidden states through the layer beside it."""
    model = LlamaForCausalLM.from_pretrained(checkpoint).eval()
    states = model(tokens(checkpoint, y), output_hidden_states=True).hidden_states[-1]
    weights = load_file(Path(checkpoint) / "model.safetensors")
    head = (weights["v_head.summary.weight"], weights["v_head.summary.bias"])
    return [float(torch.nn.functional.linear(states[0, -1], *head))]


def encoder(checkpoint: str, y: Ids) -> list[float]:
    """The tokenizer's own pair of texts."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    text = tokenizer.decode(y, clean_up_tokenization_spaces=False)
    assert tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) == y
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    return [float(model(**tokenizer(QUESTION, text, return_tensors="pt")).logits)]


def tagged(chat: Chat, y: Ids, tag: Ids, replaced: bool = False) -> tuple[torch.Tensor, list[int]]:
    """The prompt and the response with tags written in by hand, and where the tags end.

    ``replaced``: the steps' own ends are tags, and only a step without one gets a tag.
    """
    text, ends, left = list(chat.prompt_ids(USER)), [], y
    for step in STEPS:
        whole = chat.response_ids(step)
        part, left = left[: len(whole)], left[len(whole) :]
        if not part and ends:
            break
        text += part
        complete = part == whole and step.endswith("\n\n")
        text += () if replaced and complete else tag
        ends.append(len(text) - 1)
    return torch.tensor([text]), ends


def process_head(checkpoint: str, y: Ids) -> list[float]:
    chat = load_chat(checkpoint)
    tag = chat.tokenizer.convert_tokens_to_ids("<extra_0>")
    text, ends = tagged(chat, y, (tag,))
    states = Qwen2Model.from_pretrained(checkpoint).eval()(text).last_hidden_state[0, ends]
    w = load_file(Path(checkpoint) / "model-00002-of-00002.safetensors")
    inner = torch.relu(states @ w["score.0.weight"].T + w["score.0.bias"])
    logits = inner @ w["score.2.weight"].T + w["score.2.bias"]
    return [float(p) for p in logits.softmax(-1)[:, 1]]


def token_classes(checkpoint: str, y: Ids) -> list[float]:
    chat = load_chat(checkpoint)
    text, ends = tagged(chat, y, chat.response_ids("\n\n"), replaced=True)
    model = Qwen2ForTokenClassification.from_pretrained(checkpoint).eval()
    return [float(p) for p in model(text).logits[0, ends].softmax(-1)[:, 1]]


def shepherd(checkpoint: str, y: Ids) -> list[float]:
    chat = load_chat(checkpoint)
    tag, right, wrong = (chat.tokenizer.convert_tokens_to_ids(t) for t in ("▁ки", "▁+", "▁-"))
    text, ends = tagged(chat, y, (tag,))
    logits = LlamaForCausalLM.from_pretrained(checkpoint).eval()(text).logits[0, ends]
    return [float(p) for p in logits[:, [right, wrong]].softmax(-1)[:, 0]]


BY_HAND: dict[str, Callable[[str, Ids], list[float]]] = {
    "sequence": sequence, "ultra_rm": ultra_rm, "value_head": value_head, "deberta": encoder,
    "bert": encoder, "roberta": encoder, "process_head": process_head,
    "token_classes": token_classes, "shepherd": shepherd,
}  # fmt: skip
