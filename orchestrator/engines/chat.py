"""Chat text to token ids, the one place that knows of chat templates.

A response is tokenized on its own, so that the border of prompt and response is always a token
border. The closing suffix is what the template writes after the assistant's content (`<|eot_id|>`
and the like); a tokenizer without a template closes with its end-of-sequence token, one that
writes pairs of texts (BERT and its kin) with its separator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from orchestrator.engines.tokenizer_files import load_tokenizer
from orchestrator.engines.weights import read_config
from orchestrator.records import Message

# UltraRM's format, which its tokenizer does not state; the reward is read at the text's last token.
_UNCLOSED = (
    "{{ bos_token }}{% for message in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{% if message.role == 'assistant' %}Assistant: {{ message.content }}"
    "{% else %}Human: {{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
_TEMPLATES = {"LlamaRewardModel": _UNCLOSED}  # by architecture
_SENTINEL = "\u2060content\u2060"  # a text that no template writes itself


@dataclass(frozen=True)
class Chat:
    """A tokenizer with what the template says about a turn.

    Attributes:
        tokenizer: the Hugging Face tokenizer.
        closing_ids: token ids after an assistant turn's content; empty only where the model reads
            its score at the content's last token.
        end_ids: token ids with which a policy may end its response, never empty.
        text_pair: whether prompt and response are a pair of texts, each with its separator.
        gap: what stands between the prompt's text and the response where there is no template.
    """

    tokenizer: PreTrainedTokenizerBase
    closing_ids: tuple[int, ...]
    end_ids: tuple[int, ...]
    text_pair: bool = False
    gap: str = "\n\n"

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of the conversation up to where the assistant begins to write."""
        if self.tokenizer.chat_template is None:
            text = "\n\n".join(message["content"] for message in messages)
            if self.text_pair:
                # All but the last separator: that one closes the response.
                return tuple(_pair(self.tokenizer, text)[:-1])
            return tuple(self.tokenizer(text + self.gap)["input_ids"])
        text = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        # The template writes its own special tokens: a second BOS would move every position.
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def response_ids(self, response: str) -> tuple[int, ...]:
        """Token ids of a response's content, without closing."""
        return tuple(self.tokenizer(response, add_special_tokens=False)["input_ids"])

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of response tokens, special tokens left out."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))


@lru_cache(maxsize=16)
def load_chat(checkpoint: str) -> Chat:
    """Loads the tokenizer of a checkpoint folder or hub name; no remote code is run.

    Raises:
        ValueError: the tokenizer has neither an end-of-sequence token nor writes pairs of texts, or
            one of its files is damaged.
    """
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer.chat_template is None:
        architectures = read_config(checkpoint).get("architectures") or ()
        tokenizer.chat_template = next(
            (_TEMPLATES[name] for name in architectures if name in _TEMPLATES), None
        )
    pair = _writes_pairs(tokenizer)
    end = tokenizer.eos_token_id
    if end is None and not pair:
        raise ValueError(f"{checkpoint}: its tokenizer has no end-of-sequence token")
    closing = (tokenizer.sep_token_id,) if pair else _closing_ids(tokenizer)
    ends = tuple(dict.fromkeys((*closing[:1], *(() if end is None else (end,)))))
    return Chat(tokenizer, closing, ends, pair)


def _writes_pairs(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has no template but joins two texts with separators of its own."""
    if tokenizer.chat_template is not None or None in (tokenizer.cls_token, tokenizer.sep_token):
        return False
    ids, separator = _pair(tokenizer, ""), tokenizer.sep_token_id
    return ids[:2] == [tokenizer.cls_token_id, separator] and ids[2:].count(separator) > 0


def _pair(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The pair of a text and an empty one (a list, for a lone "" would count as no second text)."""
    return list(tokenizer([(text, "")])["input_ids"][0])


def _closing_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    if tokenizer.chat_template is None:
        return (tokenizer.eos_token_id,)
    if tokenizer.chat_template == _UNCLOSED:
        return ()
    turn = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _SENTINEL}]
    text = tokenizer.apply_chat_template(turn, tokenize=False)
    suffix = text.rsplit(_SENTINEL, 1)[-1].strip()
    ids = tuple(tokenizer(suffix, add_special_tokens=False)["input_ids"])
    return ids or (tokenizer.eos_token_id,)
