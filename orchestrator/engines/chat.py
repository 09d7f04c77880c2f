"""Chat text to token ids, the one place that knows of chat templates.

A response is tokenized on its own, so that the border of prompt and response is always a token
border. The closing suffix is what the template writes after the assistant's content (`<|eot_id|>`
and the like); a tokenizer without a template closes with its end-of-sequence token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from orchestrator.records import Message

_SENTINEL = "\u2060content\u2060"  # a text that no template writes itself


@dataclass(frozen=True)
class Chat:
    """A tokenizer with what the template says about a turn.

    Attributes:
        tokenizer: the Hugging Face tokenizer.
        closing_ids: token ids after an assistant turn's content, never empty.
        end_ids: token ids with which a policy may end its response.
    """

    tokenizer: PreTrainedTokenizerBase
    closing_ids: tuple[int, ...]
    end_ids: tuple[int, ...]

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of the conversation up to where the assistant begins to write."""
        if self.tokenizer.chat_template is None:
            text = "\n\n".join(message["content"] for message in messages) + "\n\n"
            return tuple(self.tokenizer(text)["input_ids"])
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
        ValueError: the tokenizer has no end-of-sequence token.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{checkpoint}: its tokenizer has no end-of-sequence token")
    closing = _closing_ids(tokenizer)
    ends = tuple(dict.fromkeys((closing[0], tokenizer.eos_token_id)))
    return Chat(tokenizer, closing, ends)


def _closing_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    if tokenizer.chat_template is None:
        return (tokenizer.eos_token_id,)
    turn = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _SENTINEL}]
    text = tokenizer.apply_chat_template(turn, tokenize=False)
    suffix = text.rsplit(_SENTINEL, 1)[-1].strip()
    ids = tuple(tokenizer(suffix, add_special_tokens=False)["input_ids"])
    return ids or (tokenizer.eos_token_id,)
