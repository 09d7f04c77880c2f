"""Small checkpoints of public process reward models, and their scores as their cards compute them.

Architectures, weights' names, templates and tokens are those of the public models; the weights are
random. Each slow function follows its card: one text, one forward, the token or head that it reads.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
)

from support.reward_kinds import renamed, rewrite
from support.template_families import CHATML, LLAMA_3, byte_level

WIDTH = 32
SIZES = {
    "vocab_size": 480, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "initializer_range": 0.3,
}  # fmt: skip
QUESTION = "What is 2 plus 3?"
GRANITE = (
    "{% for message in messages %}"
    "{{ '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content']"
    " + '<|end_of_text|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
GRANITE_QUESTION = "Is this response correct so far (Y/N)?"


def _saved(folder: Path, tokenizer: PreTrainedTokenizerFast, model: torch.nn.Module) -> str:
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    return str(folder)


def _llama_3() -> PreTrainedTokenizerFast:
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
    tokenizer = byte_level(*names, "<|eot_id|>", bos=names[0], eos="<|eot_id|>")
    tokenizer.chat_template = LLAMA_3
    return tokenizer


def rlhflow(folder: Path) -> str:
    """RLHFlow/Llama3.1-8B-PRM and -ORM: language models behind Llama 3's template."""
    torch.manual_seed(3)
    return _saved(folder, _llama_3(), LlamaForCausalLM(LlamaConfig(**SIZES)))


def granite(folder: Path) -> str:
    """Granite-3.3-8B-Math-PRM: a language model that answers Y or N."""
    names = ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>")
    tokenizer = byte_level(*names, eos=names[0])
    tokenizer.chat_template = GRANITE
    torch.manual_seed(4)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    with torch.no_grad():  # a probability among the whole vocabulary that can be told from 0
        model.lm_head.weight *= 0.2
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("Y")] *= -15
    return _saved(folder, tokenizer, model)


def skywork_o1(folder: Path) -> str:
    """Skywork-o1-Open-PRM: a Qwen 2 with a value head that has a bias."""
    tokenizer = byte_level("<|endoftext|>", bos="<|endoftext|>", eos="<|endoftext|>")
    torch.manual_seed(5)
    _saved(folder, tokenizer, Qwen2ForCausalLM(Qwen2Config(**SIZES)))
    head = {
        "v_head.summary.weight": torch.randn(1, WIDTH), "v_head.summary.bias": torch.tensor([0.4]),
    }  # fmt: skip
    rewrite(folder, head)
    return renamed(folder, "Qwen2ForPrmModel")


def two_layers(folder: Path) -> str:
    """Qwen2.5-Math-RM and INF-ORM: a head of two layers with one label."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer = byte_level(*names, eos="<|im_end|>")
    tokenizer.chat_template = CHATML
    torch.manual_seed(6)
    _saved(folder, tokenizer, Qwen2Model(Qwen2Config(**SIZES)))
    weights = load_file(folder / "model.safetensors")
    backbone = {f"model.{name}": value for name, value in weights.items()}
    head = {
        "score.0.weight": torch.randn(WIDTH, WIDTH) / 3, "score.0.bias": torch.randn(WIDTH),
        "score.2.weight": torch.randn(1, WIDTH) / 3, "score.2.bias": torch.randn(1),
    }  # fmt: skip
    rewrite(folder, {**backbone, **head}, drop=tuple(weights))
    return renamed(folder, "Qwen2ForRewardModel")


def _steps(text: str, delimiter: str) -> list[str]:
    return [step.strip() for step in text.split(delimiter) if step.strip()]


def rlhflow_rewards(folder: str, text: str, delimiter: str = "\n\n") -> list[float]:
    """The card's loop: each step a user's turn, "+" the answer, its logits two tokens before."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    plus, minus = tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]
    conversation: list[dict[str, str]] = []
    rewards = []
    for number, step in enumerate(_steps(text, delimiter)):
        content = f"{QUESTION} {step}" if number == 0 else step
        conversation.append({"role": "user", "content": content})
        conversation.append({"role": "assistant", "content": "+"})
        rendered = tokenizer.apply_chat_template(conversation, tokenize=False)
        ids = tokenizer(rendered, add_special_tokens=False, return_tensors="pt")["input_ids"]
        logits = model(ids).logits[0, -3, [plus, minus]]
        rewards.append(float(logits.softmax(-1)[0]))
    return rewards


def rlhflow_orm_rewards(folder: str, text: str) -> list[float]:
    """The whole solution in one turn."""
    return rlhflow_rewards(folder, text, "\0")


def granite_rewards(folder: str, text: str) -> list[float]:
    """The card's: the question behind each step, the probability of Y in front of each answer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    messages = []
    for number, step in enumerate(_steps(text, "\n\n")):
        content = f"{step} {GRANITE_QUESTION}"
        content = f"{QUESTION} {content}" if number == 0 else content
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": "Y"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer.encode(rendered, return_tensors="pt")
    right = tokenizer.encode("Y", add_special_tokens=False)[0]
    turn = "<|start_of_role|>assistant<|end_of_role|>"
    before = tokenizer(turn, add_special_tokens=False)["input_ids"]
    found = [
        i
        for i in torch.where(ids[0] == right)[0].tolist()
        if ids[0, i - len(before) : i].tolist() == before
    ]
    logits = model(ids).logits[0]
    return [float(logits[i - 1].softmax(-1)[right]) for i in found]


def skywork_o1_rewards(folder: str, text: str) -> list[float]:
    """The card's: BOS, problem, line end; each step tokenized alone, then the line end's token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(f"{tokenizer.bos_token}{QUESTION}\n")
    line_end, flags = tokenizer.encode("\n")[-1], []
    for step in text.split("\n"):
        if not step:
            break
        ids += [*tokenizer.encode(step), line_end]
        flags.append(len(ids) - 1)
    weights = load_file(Path(folder) / "model.safetensors")
    model = Qwen2ForCausalLM.from_pretrained(folder).eval()
    hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, flags]
    head = weights["v_head.summary.weight"], weights["v_head.summary.bias"]
    return torch.sigmoid(torch.nn.functional.linear(hidden, *head))[:, 0].tolist()


def _rendered(folder: str, text: str) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    ids: torch.Tensor = tokenizer.encode(rendered, return_tensors="pt", add_special_tokens=False)
    return ids


def two_layers_rewards(folder: str, text: str) -> list[float]:
    """The head at the last token of the template's rendering."""
    weights = load_file(Path(folder) / "model.safetensors")
    hidden = Qwen2Model.from_pretrained(folder).eval()(_rendered(folder, text)).last_hidden_state
    layers = [(weights[f"score.{n}.weight"], weights[f"score.{n}.bias"]) for n in (0, 2)]
    inner = torch.relu(torch.nn.functional.linear(hidden[0, -1], *layers[0]))
    return [float(torch.nn.functional.linear(inner, *layers[1]))]


def nemotron_rewards(folder: str, text: str) -> list[float]:
    """The score of token 0 as the first one generated behind the conversation."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = _rendered(folder, text)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return [float(out.logits[0][0, 0])]


# Preset: who makes its checkpoint, its rewards by its card, the delimiter of its steps.
PUBLIC: dict[str, tuple[Callable[[Path], str], Callable[[str, str], list[float]], str]] = {
    "rlhflow-prm": (rlhflow, rlhflow_rewards, "\n\n"),
    "rlhflow-orm": (rlhflow, rlhflow_orm_rewards, "\n\n"),
    "granite-math-prm": (granite, granite_rewards, "\n\n"),
    "skywork-o1-prm": (skywork_o1, skywork_o1_rewards, "\n"),
    "qwen2.5-math-rm": (two_layers, two_layers_rewards, "\n\n"),
    "inf-orm": (two_layers, two_layers_rewards, "\n\n"),
    "nemotron-reward": (rlhflow, nemotron_rewards, "\n\n"),
}
