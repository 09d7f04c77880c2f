"""Conversations as text: what a chat template writes, and where the response stands in it.

A reward model reads the template's rendering of the *whole* conversation, response included; a
policy goes on from the rendering that ends where the assistant begins to write. The two differ
where a template treats the last answer in a way of its own (Qwen3 writes an empty think block in
front of it). Texts are escaped (`control_tokens.py`): contents hold no control token.
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
_SPACES = " \n\t\r"  # by which it is found out how a template trims, with those of Unicode
_ALL_SPACES = f"{_SPACES}\x0b\u00a0\u3000"
# Texts that templates are known to change: blank lines, line ends, markup, what follows a mark.
_VERBATIM = "a\n\n\nB  c\r\n\r\nd 'q' <b> & \"x\"\n###\n### e\t. F_g"
THINK, END_THINK = "<think>", "</think>"
_PROBE: tuple[tuple[str, str], ...] = (("user", "x"),)
_FOLD = "\n\n"  # between a system message and the user message that it is folded into
Turns = tuple[tuple[str, str], ...]  # role and escaped content of each message


class TemplateRefuses(ValueError):
    """A chat template cannot write a conversation as it is; the message says why."""


@dataclass(frozen=True)
class Rendering:
    """The template's text of a whole conversation, escaped: ``prompt + response + closing``.

    ``response`` is the response as the template writes it: some trim white space around it.
    """

    prompt: str
    response: str
    closing: str


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: the Hugging Face tokenizer.
        source: the Jinja template.
        fold_system: whether a system message that the template does not write is folded into the
            first user message.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, source: str, fold_system: bool = True
    ) -> None:
        self.control = ControlTokens(tokenizer)
        self._tokenizer, self._source, self._fold_system = tokenizer, source, fold_system
        self._has_told = False
        self._frame = lru_cache(maxsize=64)(self._rendered_frame)

    def prompt(self, messages: Sequence[Message]) -> str:
        """The conversation up to where the assistant begins to write (`add_generation_prompt`).

        Raises:
            TemplateRefuses: the template does not take the conversation.
        """
        turns = self._turns(messages, folds=self._folds_system_of_prompts)
        return self._render(turns, add_generation_prompt=True)

    def frame(self, messages: Sequence[Message]) -> tuple[str, str]:
        """What the template writes in front of a response and behind it.

        Raises:
            TemplateRefuses: the template does not take the conversation, or does not write the
                response once.
        """
        return self._frame(self._turns(messages))

    def conversation(self, messages: Sequence[Message], response: str) -> Rendering:
        """The whole conversation, split at the response.

        The response is what stands in front of the closing, so that an equal text elsewhere is not
        taken for it.

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
            "the chat template rewrites the response (it drops a thought, for example), so that its"
            " prefixes have no tokens of their own"
        )

    def body(self, response: str, *, finished: bool) -> str:
        """The whole conversation of a short prompt up to the end of its response, escaped.

        The response is as the template writes it: it may trim it, or drop a thought. Of one that is
        not finished it is what stands in front of a continuation.

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
                answer += f"{_SENTINEL}\n{END_THINK}\n\nx"  # the thought goes on
            else:
                answer += _SENTINEL
            before, found, _ = self._render((*_PROBE, ("assistant", answer))).partition(_SENTINEL)
            if found:
                return before
        raise TemplateRefuses("the chat template rewrites the end of the response")

    @cached_property
    def trims(self) -> tuple[str | None, str | None]:
        """The white space that is left out at a response's beginning, and at its end.

        None is all of it, as of ``str.strip``; "" is none.
        """
        begin, end = "", ""
        for space in _ALL_SPACES:
            written = self._written(f"{space}{_SENTINEL}{space}")
            begin += "" if written.startswith(space) else space
            end += "" if written.endswith(space) else space
        return None if begin == _ALL_SPACES else begin, None if end == _ALL_SPACES else end

    @cached_property
    def is_verbatim(self) -> bool:
        """Whether a response is written as it is, but for trimmed white space and thoughts."""
        begin, end = self.trims
        texts = (_VERBATIM, *(f"{2 * space}x{2 * space}" for space in _SPACES))
        return all(self._writes(text, text.lstrip(begin).rstrip(end)) for text in texts)

    @cached_property
    def reads_thoughts(self) -> bool:
        """Whether a thought in a response is left out, or written at another place."""
        thought = f"{THINK}\nx\n{END_THINK}\n\n{_SENTINEL}"
        return not all(self._writes(text, text) for text in (thought, thought.removeprefix(THINK)))

    def rewrites(self, response: str) -> bool:
        """Whether a response may be written as another text, trimmed white space apart."""
        if not self.is_verbatim:
            return True
        has_thought = END_THINK in response or response.lstrip().startswith(THINK)
        return has_thought and self.reads_thoughts

    def _writes(self, answer: str, text: str) -> bool:
        try:
            return self._written(answer) == text
        except TemplateRefuses:  # of this answer
            return False

    def _written(self, answer: str) -> str:
        """What stands between the frame of a response; the whole where the frame is another."""
        before, behind = self._frame(_PROBE)
        text = self._render((*_PROBE, ("assistant", answer)))
        return text.removeprefix(before).removesuffix(behind)

    @cached_property
    def folds_system(self) -> bool:
        """Whether system messages are folded into the first user message.

        So where the template refuses them, or leaves them out.
        """
        return self._fold_system and not self._writes_system(("assistant", "x"))

    @cached_property
    def _folds_system_of_prompts(self) -> bool:
        """As ``folds_system``, up to where a policy begins to write.

        Mistral's later templates write a system message there, and in no whole conversation.
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
            (_, system), (_, user), *rest = turns
            turns = [("user", f"{system}{_FOLD}{user}" if system.strip() else user), *rest]
            if not self._has_told:
                self._has_told = True
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
