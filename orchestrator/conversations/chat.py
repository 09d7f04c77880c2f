"""Conversations as token ids: a tokenizer with its chat template.

For a reward model, the template renders the full conversation, which is tokenized once, so that
every score is the one that the model's card computes. The ids are split into prompt, response and
closing; a token that spans prompt and response belongs to the response. A policy's prompt ends with
the generation prompt. Formats that a tokenizer does not define: `chat_formats.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from transformers import PreTrainedTokenizerBase

from orchestrator.conversations.chat_formats import (
    BLANK_LINE,
    bos_ids,
    empty_text_pair,
    joins_text_pairs,
    plain_template,
    template_of_architecture,
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
    """The token ids of a full conversation: prompt, response and closing."""

    prompt_ids: Ids
    response_ids: Ids
    closing_ids: Ids


class Chat:
    """A tokenizer with its chat template.

    Attributes:
        tokenizer: the Hugging Face tokenizer.
        closing_ids: token ids after a response, up to the one at which a reward model scores;
            empty if it scores at the response's last token.
        end_ids: token ids with which a policy may end its response, at least one; the first is the
            one with which the template ends an answer.
        text_pair: whether the model reads prompt and response as a pair of texts, each followed by
            a separator.
        template: renders conversations as text; None if the tokenizer joins a pair of texts.

    Args:
        tokenizer: the Hugging Face tokenizer.
        generation_ends: ids with which its checkpoint ends a generation.
        template: the Jinja source, or an object that renders conversations; None for pairs of
            texts.
        bos_ids: token ids before every text; empty if the template writes the BOS.
        score_at: the token of the closing at which a reward model scores, as text or as a negative
            index from the rendering's end; None is the last one.
        fold_system: as in ``ChatTemplate``.

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
        self._closing = self._full_closing_ids()
        self.closing_ids = up_to_scored(self._closing, score_at, tokenizer)
        self.end_ids = end_ids(tokenizer, self._closing, generation_ends)

    @property
    def end_id(self) -> int:
        """The token with which an answer ends."""
        return self.end_ids[0]

    def prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """Return token ids of the conversation up to where the policy continues.

        Raises:
            TemplateRefuses: the template does not take the conversation.
        """
        if self.template is None:
            return self._first_text_ids(messages)
        return self.encoded(self.template.prompt(messages))

    def answered(self, messages: Sequence[Message], response: str) -> tuple[Ids, Ids]:
        """Return token ids of a policy's prompt and of the response after it.

        If the template rewrites the response, or writes an empty think block before it, the
        response follows the prompt directly.

        Raises:
            TemplateRefuses: the template does not take the conversation.
        """
        prompt = self.prompt_ids(messages)
        try:
            text = self.conversation(messages, response)
        except TemplateRefuses:  # it rewrites this response: it drops a thought, say
            return prompt, self._ids_after(messages, prompt, response)
        ids = text.prompt_ids + text.response_ids
        if ids[: len(prompt)] != prompt:  # an empty think block before the response
            return prompt, self._ids_after(messages, prompt, response)
        return prompt, ids[len(prompt) :]

    def _ids_after(self, messages: Sequence[Message], prompt: Ids, response: str) -> Ids:
        """Return token ids of a response after a policy's prompt; after a word if they merge."""
        if self.template is not None:
            written = self.template.prompt(messages) + self._control.escape(response)
            ids = self.encoded(written)
            if ids[: len(prompt)] == prompt:
                return ids[len(prompt) :]
        return self._policy_text.ids_after_text(response)

    def reward_prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """Return token ids of the full conversation up to its response, for any response.

        Raises:
            TemplateRefuses: the template does not take the conversation.
        """
        if self.template is None:
            return self._first_text_ids(messages)
        return self._prompt(self.template.frame(messages)[0])

    def conversation(self, messages: Sequence[Message], response: str) -> Conversation:
        """Return token ids of the full conversation, as a reward model reads it.

        Raises:
            TemplateRefuses: the template does not take the conversation, rewrites the response, or
                writes a closing that merges with the response's last token.
        """
        if self.template is None:
            prompt, answer = self._first_text_ids(messages), self.response_ids(response)
            return Conversation(prompt, answer, self.closing_ids)
        text = self.template.conversation(messages, response)
        ids = self.encoded(text.prompt + text.response + text.closing)
        end = len(ids) - len(self._closing)
        if ids[end:] != self._closing:
            raise TemplateRefuses("the chat template's closing tokens merge with the response")
        prompt, answer = split(self._prompt(text.prompt), ids[:end])
        return Conversation(prompt, answer, self.closing_ids)

    def pair(self, messages: Sequence[Message], chosen: str, rejected: str) -> tuple[Ids, Ids, Ids]:
        """Return token ids of a prompt and of two responses to it, as a reward model reads them.

        If one response merges with the prompt's end, both responses begin with the merged tokens.

        Raises:
            TemplateRefuses: as ``conversation``.
        """
        first, second = (self.conversation(messages, text) for text in (chosen, rejected))
        size = min(len(first.prompt_ids), len(second.prompt_ids))
        chosen_ids, rejected_ids = (
            one.prompt_ids[size:] + one.response_ids for one in (first, second)
        )
        return first.prompt_ids[:size], chosen_ids, rejected_ids

    def response_ends(self, messages: Sequence[Message], response: str) -> tuple[str, list[int]]:
        """Return a response as rendered, and the ends of the tokens of prompt and response.

        An end is a character of the response; the ends of the prompt's tokens are 0 or negative.

        Raises:
            TemplateRefuses: as ``conversation``.
        """
        if self.template is None:
            return response, [*self._control.encode_with_ends(self._control.escape(response))[1]]
        text = self.template.conversation(messages, response)
        _, ends = self._control.encode_with_ends(text.prompt + text.response + text.closing)
        start = len(self._control.unescape(text.prompt))
        ends = ends[: len(ends) - len(self._closing)]
        return self._control.unescape(text.response), [end - start for end in ends]

    def response_ids(self, response: str) -> Ids:
        """Return token ids of a text without context; spelled control tokens are ordinary text."""
        return self._control.content_ids(response)

    def marker_ids(self, text: str) -> Ids:
        """Return token ids of a format's text, such as a step tag, including control tokens."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, token_ids: Sequence[int]) -> str:
        """Decode some tokens of a response, without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def response_text(self, token_ids: Sequence[int]) -> str:
        """Decode a policy's response, without ``lead`` (`policy_text.py`)."""
        return self._policy_text.of(tuple(token_ids))

    @property
    def lead(self) -> str:
        """The text that a policy writes before a response because its template does."""
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
        """The text that the template writes before a response to a short prompt."""
        assert self.template is not None
        return self.template.frame([{"role": "user", "content": _PROBE}])[0]

    def encoded(self, text: str) -> Ids:
        """Return token ids of escaped text of the template (`control_tokens.py`), BOS first."""
        return self._bos_ids + self._control.encode(text)

    def _first_text_ids(self, messages: Sequence[Message]) -> Ids:
        """Return all but the last separator, which closes the response."""
        text = BLANK_LINE.join(message["content"] for message in messages)
        first = self.response_ids(text)
        empty = empty_text_pair(self.tokenizer)  # [CLS] [SEP] ... [SEP]
        return (*empty[:1], *first, *empty[1:-1])

    def _full_closing_ids(self) -> Ids:
        if self.template is None:
            return (self.tokenizer.sep_token_id,)
        _, closing = self.template.frame([{"role": "user", "content": _PROBE}])
        begin = self.encoded(self.frame + _PROBE)
        ids = self.encoded(self.frame + _PROBE + closing)
        if ids[: len(begin)] != begin:
            raise ValueError(
                "the chat template's closing tokens merge with the response's last token"
            )
        return ids[len(begin) :]


def load_chat(
    checkpoint: str,
    fold_system: bool = True,
    score_at: ScoreAt | None = None,
    gap: str = BLANK_LINE,
) -> Chat:
    """Load the tokenizer of a checkpoint folder or hub name. Runs no remote code.

    Args:
        checkpoint: folder or hub name.
        fold_system: as in ``ChatTemplate``.
        score_at: as in ``Chat``.
        gap: text before a response if the tokenizer has no template.

    Raises:
        ValueError: the tokenizer has no end-of-sequence token and does not join pairs of texts, or
            as ``Chat``.
    """
    return _load_cached(checkpoint, fold_system, score_at, gap)


@lru_cache(maxsize=16)
def _load_cached(checkpoint: str, fold_system: bool, score_at: ScoreAt | None, gap: str) -> Chat:
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = template_of_architecture(checkpoint)
    pair = joins_text_pairs(tokenizer)
    if tokenizer.eos_token_id is None and not pair:
        raise ValueError(
            f"{checkpoint}: its tokenizer has no end-of-sequence token; valid: a"
            " tokenizer with an eos_token"
        )
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
