"""Conversations as token ids, the one place that puts a tokenizer and its chat template together.

A reward model's ids are those of the template's rendering of the whole conversation, tokenized
once, so that every score is the one that the model's card computes. They are split into prompt,
response and closing: tokens that hold a piece of both prompt and response belong to the response.
A policy's prompt ends where the assistant begins to write. Formats
that a tokenizer does not state: `chat_formats.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from transformers import PreTrainedTokenizerBase

from orchestrator.conversations.chat_formats import (
    BLANK_LINE,
    bos_ids,
    empty_pair,
    plain_template,
    template_of_architecture,
    writes_pairs,
)
from orchestrator.conversations.control_tokens import ControlTokens, Ids, split
from orchestrator.conversations.end_tokens import ScoreAt, end_ids, generation_ends, up_to_scored
from orchestrator.conversations.policy_text import PolicyText
from orchestrator.conversations.rendering import ChatTemplate, TemplateRefuses
from orchestrator.conversations.tokenizer_files import load_tokenizer, template_file
from orchestrator.records import Message

_PROBE = "x"  # a response whose last character merges with no closing


@dataclass(frozen=True)
class Conversation:
    """The token ids of a whole conversation, in three parts."""

    prompt_ids: Ids
    response_ids: Ids
    closing_ids: Ids


class Chat:
    """A tokenizer with its chat template.

    Attributes:
        tokenizer: the Hugging Face tokenizer.
        closing_ids: token ids behind a response, up to the one at which a reward model scores;
            empty where it scores at the response's last token.
        end_ids: token ids with which a policy may end its response, never empty; the first is the
            one with which the template ends an answer.
        text_pair: whether the model reads prompt and response as a pair of texts, each followed by
            a separator.
        template: renders conversations as text; None if the tokenizer joins a pair of texts.

    Args:
        tokenizer: the Hugging Face tokenizer.
        generation_ends: ids with which its checkpoint ends a generation.
        template: the Jinja source or what writes conversations; None for pairs of texts.
        bos_ids: token ids in front of every text; empty where the template writes the BOS.
        score_at: the token of the closing at which a reward model scores, as text or as a negative
            index from the rendering's end; None is the last one.
        fold_system: as of ``ChatTemplate``.

    Raises:
        ValueError: the template does not write a response once, its closing merges with the
            response, or it has no token ``score_at``.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        generation_ends: Ids,
        template: str | ChatTemplate | None,
        bos_ids: Ids = (),
        score_at: ScoreAt | None = None,
        fold_system: bool = True,
    ) -> None:
        self.tokenizer, self.text_pair = tokenizer, template is None
        self._bos_ids = bos_ids
        if isinstance(template, str):
            template = ChatTemplate(tokenizer, template, fold_system)
        self.template = template
        self._control = self.template.control if self.template else ControlTokens(tokenizer)
        self._prompt = lru_cache(maxsize=64)(self.encoded)
        self._closing = self._closing_of_a_response()
        self.closing_ids = up_to_scored(self._closing, score_at, tokenizer)
        self.end_ids = end_ids(tokenizer, self._closing, generation_ends)

    @property
    def end_id(self) -> int:
        """The token with which an answer ends."""
        return self.end_ids[0]

    def prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """Token ids of the conversation up to where a policy begins to write.

        Raises:
            TemplateRefuses: the template does not take the conversation.
        """
        if self.template is None:
            return self._first_of_pair(messages)
        return self.encoded(self.template.prompt(messages))

    def answered(self, messages: Sequence[Message], response: str) -> tuple[Ids, Ids]:
        """Token ids of a policy's prompt and of the response behind it.

        The response stands just behind the prompt where the template rewrites it, or writes an
        empty think block in front of it.

        Raises:
            TemplateRefuses: the template does not take the conversation.
        """
        prompt = self.prompt_ids(messages)
        try:
            text = self.conversation(messages, response)
        except TemplateRefuses:  # of the response: it rewrites some, such as those that think
            return prompt, self._behind(messages, prompt, response)
        whole = text.prompt_ids + text.response_ids
        if whole[: len(prompt)] != prompt:  # an empty think block stands in front of the response
            return prompt, self._behind(messages, prompt, response)
        return prompt, whole[len(prompt) :]

    def _behind(self, messages: Sequence[Message], prompt: Ids, response: str) -> Ids:
        """Token ids of a response just behind a policy's prompt, or behind a word if both merge."""
        if self.template is not None:
            written = self.template.prompt(messages) + self._control.escape(response)
            whole = self.encoded(written)
            if whole[: len(prompt)] == prompt:
                return whole[len(prompt) :]
        return self._policy_text.ids_behind_text(response)

    def reward_prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """Token ids of the whole conversation up to its response, whatever the response is.

        Raises:
            TemplateRefuses: the template does not take the conversation.
        """
        if self.template is None:
            return self._first_of_pair(messages)
        return self._prompt(self.template.frame(messages)[0])

    def conversation(self, messages: Sequence[Message], response: str) -> Conversation:
        """Token ids of the whole conversation, as a reward model reads it.

        Raises:
            TemplateRefuses: the template does not take the conversation, rewrites the response, or
                writes a closing that merges with the response's last token.
        """
        if self.template is None:
            prompt, answer = self._first_of_pair(messages), self.response_ids(response)
            return Conversation(prompt, answer, self.closing_ids)
        text = self.template.conversation(messages, response)
        ids = self.encoded(text.prompt + text.response + text.closing)
        end = len(ids) - len(self._closing)
        if ids[end:] != self._closing:
            raise TemplateRefuses("the chat template's closing merges with the response")
        prompt, answer = split(self._prompt(text.prompt), ids[:end])
        return Conversation(prompt, answer, self.closing_ids)

    def pair(self, messages: Sequence[Message], chosen: str, rejected: str) -> tuple[Ids, Ids, Ids]:
        """Token ids of a prompt and of two responses to it, as a reward model reads them.

        Where one response merges with the prompt's end, its first tokens belong to both responses.

        Raises:
            TemplateRefuses: as of ``conversation``.
        """
        first, second = (self.conversation(messages, text) for text in (chosen, rejected))
        size = min(len(first.prompt_ids), len(second.prompt_ids))
        chosen_ids, rejected_ids = (
            one.prompt_ids[size:] + one.response_ids for one in (first, second)
        )
        return first.prompt_ids[:size], chosen_ids, rejected_ids

    def response_ids(self, response: str) -> Ids:
        """Token ids of a text by itself; control tokens that it spells are ordinary text."""
        return self._control.content_ids(response)

    def marker_ids(self, text: str) -> Ids:
        """Token ids of a text that a format writes, such as a step tag: control tokens count."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of a piece of a response, special tokens left out."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def response_text(self, token_ids: Sequence[int]) -> str:
        """The text of a whole response of a policy, without ``lead`` (`policy_text.py`)."""
        return self._policy_text.of(tuple(token_ids))

    @property
    def lead(self) -> str:
        """What a policy writes in front of a response because its template does."""
        return self._policy_text.lead

    @cached_property
    def _policy_text(self) -> PolicyText:
        return PolicyText(self)

    @property
    def control(self) -> ControlTokens:
        """The tokenizer's control tokens."""
        return self._control

    @cached_property
    def frame(self) -> str:
        """What the template writes in front of a response to some prompt."""
        assert self.template is not None
        return self.template.frame([{"role": "user", "content": _PROBE}])[0]

    def encoded(self, text: str) -> Ids:
        """Token ids of escaped text of the template (`control_tokens.py`), the BOS in front."""
        return self._bos_ids + self._control.encode(text)

    def _first_of_pair(self, messages: Sequence[Message]) -> Ids:
        """All but the last separator: that one closes the response."""
        text = BLANK_LINE.join(message["content"] for message in messages)
        first = self.response_ids(text)
        empty = empty_pair(self.tokenizer)  # [CLS] [SEP] ... [SEP]
        return (*empty[:1], *first, *empty[1:-1])

    def _closing_of_a_response(self) -> Ids:
        if self.template is None:
            return (self.tokenizer.sep_token_id,)
        _, closing = self.template.frame([{"role": "user", "content": _PROBE}])
        begin = self.encoded(self.frame + _PROBE)
        ids = self.encoded(self.frame + _PROBE + closing)
        if ids[: len(begin)] != begin:
            raise ValueError("the chat template's closing merges with the response's last token")
        return ids[len(begin) :]


def load_chat(
    checkpoint: str,
    fold_system: bool = True,
    score_at: ScoreAt | None = None,
    gap: str = BLANK_LINE,
) -> Chat:
    """Loads the tokenizer of a checkpoint folder or hub name; no remote code is run.

    Args:
        checkpoint: folder or hub name.
        fold_system: as of ``ChatTemplate``.
        score_at: as of ``Chat``.
        gap: what stands in front of a response where the tokenizer has no template.

    Raises:
        ValueError: the tokenizer has neither an end-of-sequence token nor writes pairs of texts, or
            as of ``Chat``.
    """
    return _loaded(checkpoint, fold_system, score_at, gap)


@lru_cache(maxsize=16)
def _loaded(checkpoint: str, fold_system: bool, score_at: ScoreAt | None, gap: str) -> Chat:
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = template_of_architecture(checkpoint)
    pair = writes_pairs(tokenizer)
    if tokenizer.eos_token_id is None and not pair:
        raise ValueError(f"{checkpoint}: its tokenizer has no end-of-sequence token")
    plain = tokenizer.chat_template is None and not pair
    try:
        return Chat(
            tokenizer,
            generation_ends(checkpoint),
            plain_template(gap) if plain else tokenizer.chat_template,
            bos_ids(tokenizer) if plain else (),
            score_at,
            fold_system,
        )
    except TemplateRefuses as error:
        raise ValueError(f"{checkpoint}: {template_file(checkpoint)}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error
