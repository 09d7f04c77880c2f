"""Conversations as text: what a chat template renders, and which part is the response.

A reward model reads the rendering of the *full* conversation, response included; a policy continues
the rendering that ends with the generation prompt. The two differ if a template treats the last
answer specially (Qwen3 writes an empty think block before it). Texts are escaped
(`control_tokens.py`): contents hold no control token.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from orchestrator.conversations.control_tokens import NEVER_IN_CONTENT, ControlTokens
from orchestrator.records import Message

_LOG = logging.getLogger(__name__)
_FOLDED = (
    "%s: the chat template writes no system message; it is folded into the first user message"
    " (fold_system)"
)
_SENTINEL = f"{NEVER_IN_CONTENT}content{NEVER_IN_CONTENT}"
_SPACES = " \n\t\r"  # probed alone, and with Unicode's spaces, for what a template strips
_ALL_SPACES = f"{_SPACES}\x0b\u00a0\u3000"
# Texts that some templates change: blank lines, line ends, markup, text after a mark.
_VERBATIM = "a\n\n\nB  c\r\n\r\nd 'q' <b> & \"x\"\n###\n### e\t. F_g"
THINK, END_THINK = "<think>", "</think>"
_PROBE: tuple[tuple[str, str], ...] = (("user", "x"),)
_FOLD = "\n\n"  # between a system message and the user message that it is folded into
Turns = tuple[tuple[str, str], ...]  # role and escaped content of each message


class TemplateRefuses(ValueError):
    """A chat template rejects or changes a conversation; the message says why."""


@dataclass(frozen=True)
class Rendering:
    """The rendering of a full conversation, escaped: ``prompt + response + closing``.

    ``response`` is as the template writes it: some trim white space around it.
    """

    prompt: str
    response: str
    closing: str


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: the Hugging Face tokenizer.
        source: the Jinja template.
        fold_system: whether a system message that the template does not render is folded into
            the first user message.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, source: str, fold_system: bool = True
    ) -> None:
        self.control = ControlTokens(tokenizer)
        self._tokenizer, self._source, self._fold_system = tokenizer, source, fold_system
        self._has_warned = False
        self._frame = lru_cache(maxsize=64)(self._rendered_frame)

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render the conversation with the generation prompt (`add_generation_prompt`).

        Raises:
            TemplateRefuses: the template does not take the conversation.
        """
        turns = self._turns(messages, folds=self._folds_system_of_prompts)
        return self._render(turns, add_generation_prompt=True)

    def frame(self, messages: Sequence[Message]) -> tuple[str, str]:
        """Return the text that the template writes before and after a response.

        Raises:
            TemplateRefuses: the template does not take the conversation, or does not write the
                response once.
        """
        return self._frame(self._turns(messages))

    def conversation(self, messages: Sequence[Message], response: str) -> Rendering:
        """Render the full conversation, split at the response.

        The response is the text directly before the closing, not an equal text elsewhere.

        Raises:
            TemplateRefuses: as ``frame``, or the template writes another text than the response.
        """
        turns, answer = self._turns(messages), self.control.escape(response)
        _, closing = self._frame(turns)
        text = self._render((*turns, ("assistant", answer)))
        body = text.removesuffix(closing)
        if len(body) + len(closing) == len(text):
            begin, end = self.trims
            written = answer.lstrip(begin).rstrip(end)
            if body.endswith(written):
                return Rendering(body[: len(body) - len(written)], written, closing)
        raise TemplateRefuses(
            "the chat template rewrites the response (it drops a thought, for example), so the"
            " tokens of its prefixes are undefined; valid: a response that it writes unchanged"
        )

    def body(self, response: str, *, finished: bool) -> str:
        """Return the rendering of the prompt "x" and a response, without what follows it, escaped.

        If it is not ``finished``, the text is the one that the template writes while the response
        continues: trailing white space and an open thought remain.

        Raises:
            TemplateRefuses: the template does not take the response.
        """
        answer = self.control.escape(response)
        if finished:
            text, closing = self._render((*_PROBE, ("assistant", answer))), self._frame(_PROBE)[1]
            if text.endswith(closing):
                return text.removesuffix(closing)
        else:
            if answer.startswith(THINK) and END_THINK not in answer:
                answer += f"{_SENTINEL}\n{END_THINK}\n\nx"  # the thought continues
            else:
                answer += _SENTINEL
            rendered = self._render((*_PROBE, ("assistant", answer)))
            before, sentinel, _ = rendered.partition(_SENTINEL)
            if sentinel:
                return before
        raise TemplateRefuses("the chat template rewrites the end of the response")

    @cached_property
    def trims(self) -> tuple[str | None, str | None]:
        """The characters that the template strips at a response's beginning, and at its end.

        They are arguments of ``str.lstrip`` and ``str.rstrip``: None strips all white space, ""
        strips nothing.
        """
        begin, end = "", ""
        for space in _ALL_SPACES:
            written = self._written(f"{space}{_SENTINEL}{space}")
            begin += "" if written.startswith(space) else space
            end += "" if written.endswith(space) else space
        return None if begin == _ALL_SPACES else begin, None if end == _ALL_SPACES else end

    @cached_property
    def is_verbatim(self) -> bool:
        """Whether a response is unchanged, except for trimmed white space and thoughts."""
        begin, end = self.trims
        texts = (_VERBATIM, *(f"{2 * space}x{2 * space}" for space in _SPACES))
        return all(self._writes(text, text.lstrip(begin).rstrip(end)) for text in texts)

    @cached_property
    def reads_thoughts(self) -> bool:
        """Whether a thought in a response is dropped or moved."""
        thought = f"{THINK}\nx\n{END_THINK}\n\n{_SENTINEL}"
        return not all(self._writes(text, text) for text in (thought, thought.removeprefix(THINK)))

    def rewrites(self, response: str) -> bool:
        """Return whether a response may be changed, apart from trimmed white space."""
        if not self.is_verbatim:
            return True
        has_thought = END_THINK in response or response.lstrip().startswith(THINK)
        return has_thought and self.reads_thoughts

    def _writes(self, answer: str, text: str) -> bool:
        try:
            return self._written(answer) == text
        except TemplateRefuses:  # the template refuses this answer
            return False

    def _written(self, answer: str) -> str:
        """Return the rendering without the frame; a side of it that differs is not removed."""
        before, after = self._frame(_PROBE)
        text = self._render((*_PROBE, ("assistant", answer)))
        return text.removeprefix(before).removesuffix(after)

    @cached_property
    def folds_system(self) -> bool:
        """Whether system messages are folded into the first user message.

        True if the template rejects or omits them.
        """
        return self._fold_system and not self._writes_system(("assistant", "x"))

    @cached_property
    def _folds_system_of_prompts(self) -> bool:
        """As ``folds_system``, for renderings with the generation prompt.

        Mistral's later templates write a system message there, but not in full conversations.
        """
        return self._fold_system and not self._writes_system()

    def _writes_system(self, *answer: tuple[str, str]) -> bool:
        turns = (("system", _SENTINEL), ("user", "x"), *answer)
        try:
            return _SENTINEL in self._render(turns, add_generation_prompt=not answer)
        except TemplateRefuses:
            return False

    def _turns(self, messages: Sequence[Message], folds: bool | None = None) -> Turns:
        turns = [(message["role"], self.control.escape(message["content"])) for message in messages]
        roles = [role for role, _ in turns[:2]]
        folds = self.folds_system if folds is None else folds
        if folds and roles == ["system", "user"]:
            (_, system), (_, user), *following = turns
            turns = [("user", f"{system}{_FOLD}{user}" if system.strip() else user), *following]
            if not self._has_warned:
                self._has_warned = True
                _LOG.warning(_FOLDED, self._tokenizer.name_or_path)
        return tuple(turns)

    def _rendered_frame(self, turns: Turns) -> tuple[str, str]:
        parts = self._render((*turns, ("assistant", _SENTINEL))).split(_SENTINEL)
        if len(parts) != 2:
            raise TemplateRefuses(
                f"the chat template writes the response {len(parts) - 1} times, not once"
            )
        return parts[0], parts[1]

    def _render(self, turns: Turns, add_generation_prompt: bool = False) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [{"role": role, "content": content} for role, content in turns],
                    chat_template=self._source,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
            )
        except (TemplateError, TypeError) as error:
            raise TemplateRefuses(f"the chat template refuses the conversation: {error}") from error
