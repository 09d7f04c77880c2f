"""Conversation formats that tokenizers do not define: by architecture, plain text, text pairs."""

from transformers import PreTrainedTokenizerBase

from orchestrator.checkpoints.weights import read_config
from orchestrator.conversations.control_tokens import Ids

BLANK_LINE = "\n\n"
# UltraRM's format, which its tokenizer does not define; the reward is read at the last token.
_UNCLOSED = (
    "{{ bos_token }}{% for message in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{% if message.role == 'assistant' %}Assistant: {{ message.content }}"
    "{% else %}Human: {{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
TEMPLATES = {"LlamaRewardModel": _UNCLOSED}  # template of each architecture
# For a tokenizer without a template; GAP precedes the last answer.
_PLAIN = (
    "{% for message in messages %}{{ message.content }}"
    "{% if loop.revindex0 == 1 and messages[-1].role == 'assistant' %}GAP"
    "{% elif not loop.last %}{{ '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}GAP{% elif messages[-1].role == 'assistant' %}{{ eos_token }}"
    "{% endif %}"
)


def template_of_architecture(checkpoint: str) -> str | None:
    """Return the Jinja source for a checkpoint's architecture; None if there is none."""
    names = read_config(checkpoint).get("architectures") or ()
    return next((TEMPLATES[name] for name in names if name in TEMPLATES), None)


def plain_template(gap: str = BLANK_LINE) -> str:
    """Return the Jinja source for a tokenizer without one; ``gap`` precedes a response."""
    return _PLAIN.replace("GAP", "{{ " + repr(gap) + " }}")


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """Return the BOS token if the tokenizer adds it, else no token."""
    ids = tokenizer("")["input_ids"]
    return tuple(ids[:1]) if ids[:1] == [tokenizer.bos_token_id] else ()


def joins_text_pairs(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer has no template but joins two texts with separators."""
    if tokenizer.chat_template is not None or None in (tokenizer.cls_token, tokenizer.sep_token):
        return False
    ids, separator = empty_text_pair(tokenizer), tokenizer.sep_token_id
    return ids[:2] == [tokenizer.cls_token_id, separator] and ids[2:].count(separator) > 0


def empty_text_pair(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of a pair of empty texts.

    The pair is passed as a batch of one, because the tokenizer ignores ``text_pair=""``.
    """
    return list(tokenizer([("", "")])["input_ids"][0])
