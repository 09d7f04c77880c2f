"""Scores of the tiny reward models by transformers called by hand, as each model's makers say.

One function a kind: a checkpoint and the tokens of y_<t to the rewards of its steps; a kind that
knows no steps gives one reward.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    LlamaForCausalLM,
    LlamaModel,
)

from orchestrator.conversations.chat import load_chat
from orchestrator.search.engines import Ids
from support.reward_kinds import BASE, QUESTION

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


def steps_of(checkpoint: str, y: Ids, delimiter: str) -> list[str]:
    """The steps of a prefix, split as text; what begins a delimiter at its end is left away."""
    text = load_chat(checkpoint).text(y)
    while not text.endswith(delimiter) and delimiter.startswith(text[-1:]) and text:
        text = text[:-1]
    return [step for step in text.split(delimiter) if step.strip()] or [""]


def process_head(checkpoint: str, y: Ids, delimiter: str = "\n\n") -> list[float]:
    """As Qwen2.5-Math-PRM's card: the steps joined by the tag, one text tokenized whole."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    text = tokenizer.apply_chat_template(USER, tokenize=False, add_generation_prompt=True)
    text += "<extra_0>".join(steps_of(checkpoint, y, delimiter)) + "<extra_0>"
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    states = AutoModel.from_pretrained(checkpoint).eval()(ids).last_hidden_state
    tags = ids[0] == tokenizer.convert_tokens_to_ids("<extra_0>")
    w = load_file(Path(checkpoint) / "model-00002-of-00002.safetensors")
    inner = torch.relu(states[0, tags] @ w["score.0.weight"].T + w["score.0.bias"])
    logits = inner @ w["score.2.weight"].T + w["score.2.bias"]
    return [float(p) for p in logits.softmax(-1)[:, 1]]


def token_classes(checkpoint: str, y: Ids, separator: str = "\n\n") -> list[float]:
    """As TRL tokenizes its training rows: prompt, then each step and the separator's tokens."""
    chat = load_chat(checkpoint)
    ids, ends = list(chat.prompt_ids(USER)), []
    for step in steps_of(checkpoint, y, separator):
        ids += chat.response_ids(step) + chat.response_ids(separator)
        ends.append(len(ids) - 1)
    model = AutoModelForTokenClassification.from_pretrained(checkpoint).eval()
    return [float(p) for p in model(torch.tensor([ids])).logits[0, ends].softmax(-1)[:, 1]]


def shepherd(checkpoint: str, y: Ids, delimiter: str = "\n") -> list[float]:
    """As Math-Shepherd's card: question, then steps with "ки" at each line's end, one text."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    steps = steps_of(checkpoint, y, delimiter)
    solution = f" ки{delimiter}".join(steps)
    text = f"{QUESTION} {solution} ки" if solution else f"{QUESTION} ки"
    ids = tokenizer(text, return_tensors="pt")
    tag, right, wrong = (tokenizer.encode(f"x {mark}")[-1] for mark in ("ки", "+", "-"))
    logits = LlamaForCausalLM.from_pretrained(checkpoint).eval()(**ids).logits[0]
    rewards = logits[:, [right, wrong]].softmax(-1)[ids["input_ids"][0] == tag, 0]
    assert len(rewards) == len(steps)
    return [float(p) for p in rewards]


def log_probs(checkpoint: str, y: Ids, temperature: float = 1.0) -> torch.Tensor:
    """The log-probability of each token of y, and those of all tokens after it."""
    prompt = load_chat(checkpoint).prompt_ids(USER)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    logits = model(torch.tensor([prompt + y])).logits[0, len(prompt) - 1 :] / temperature
    return torch.log_softmax(logits, -1)


def log_ratio(checkpoint: str, y: Ids) -> list[float]:
    """Beta = 0.5 times the sum of log-ratios of the tokens, then with that of the end token."""
    both = (checkpoint, str(Path(checkpoint) / BASE))
    own, base = (log_probs(name, y) for name in both)
    ratios = [float(own[t, token] - base[t, token]) for t, token in enumerate(y)]
    end = load_chat(checkpoint).end_id
    q = 0.5 * sum(ratios)
    return [q, q + 0.5 * float(own[-1, end] - base[-1, end])]


def likelihood(checkpoint: str, y: Ids) -> list[float]:
    """The mean of the tokens' log-probabilities at temperature 2."""
    values = log_probs(checkpoint, y, temperature=2.0)
    return [sum(float(values[t, token]) for t, token in enumerate(y)) / len(y)]


BY_HAND: dict[str, Callable[..., list[float]]] = {
    "sequence": sequence, "ultra_rm": ultra_rm, "value_head": value_head, "deberta": encoder,
    "bert": encoder, "roberta": encoder, "process_head": process_head,
    "token_classes": token_classes, "shepherd": shepherd, "log_ratio": log_ratio,
    "likelihood": likelihood,
}  # fmt: skip
