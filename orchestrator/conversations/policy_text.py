"""The text that a policy's tokens say behind its prompt.

Decoding a response alone is not enough: tokenizers of SentencePiece's kind lose its first space,
and what the policy writes because its chat template does (a space, an empty think block, a channel)
is no part of its answer.
"""

from functools import cached_property
from typing import TYPE_CHECKING

from orchestrator.conversations.control_tokens import Ids
from orchestrator.conversations.rendering import TemplateRefuses

if TYPE_CHECKING:
    from orchestrator.conversations.chat import Chat

_WORD = "x"
_SPACE = "\u2581"  # as SentencePiece writes a space in its tokens


class PolicyText:
    """Reads the responses of a policy as text.

    Args:
        chat: the policy's.
    """

    def __init__(self, chat: "Chat") -> None:
        self._chat = chat

    def of(self, token_ids: Ids) -> str:
        """The text of a whole response, or of its beginning, without ``lead``."""
        lead = self._lead_ids
        if not lead:
            return self._behind_text(token_ids).removeprefix(self.lead)
        if lead[: len(token_ids)] == token_ids:
            return ""
        has_lead = token_ids[: len(lead)] == lead
        return self._behind_text(token_ids[len(lead) :] if has_lead else token_ids)

    def ids_behind_text(self, response: str) -> Ids:
        """Token ids of a text as it stands behind other text; by itself where both merge."""
        word = self._word_ids
        both = self._chat.response_ids(f"{_WORD}{response}") if word else ()
        is_apart = bool(word) and both[: len(word)] == word
        return both[len(word) :] if is_apart else self._chat.response_ids(response)

    @cached_property
    def lead(self) -> str:
        """What a policy writes in front of a response because its template does.

        A space (Mistral), an empty think block (Qwen3), a channel (gpt-oss), or nothing.
        """
        begin = self._begin
        if not begin or not self._chat.frame.startswith(begin):
            return ""
        return self._chat.frame.removeprefix(begin)

    @cached_property
    def _lead_ids(self) -> Ids:
        """The tokens of a lead that holds control tokens, which no text of a response shows."""
        ids = self._chat.marker_ids(self.lead) if self.lead else ()
        return ids if set(ids) & set(self._chat.control.ids) else ()

    @cached_property
    def _begin(self) -> str:
        """The text up to where a policy begins to write, of some prompt; "" if there is none."""
        if self._chat.template is None:
            return ""
        try:
            return self._chat.template.prompt([{"role": "user", "content": _WORD}])
        except TemplateRefuses:  # a lone user turn
            return ""

    @cached_property
    def _word_ids(self) -> Ids:
        """A word behind which a text keeps its first space, where decoding it alone loses it."""
        chat = self._chat
        word, both = chat.response_ids(_WORD), chat.response_ids(f"{_WORD} {_WORD}")
        second = both[len(word) :]
        loses = self._begins_with_space(second) and chat.text(second) == chat.text(word) == _WORD
        if not loses or chat.template is None:
            return ()
        # Behind some prompts every text gets a space in front, which decoding rightly leaves out.
        begin = chat.encoded(self._begin)
        behind = chat.encoded(f"{self._begin}{_WORD}")[len(begin) :]
        return () if self._begins_with_space(behind) else word

    def _begins_with_space(self, token_ids: Ids) -> bool:
        names = self._chat.tokenizer.convert_ids_to_tokens(list(token_ids[:1]))
        return bool(names) and names[0].startswith(_SPACE)

    def _behind_text(self, token_ids: Ids) -> str:
        """The text of tokens that stand behind others: a first space is a part of it."""
        if not self._word_ids:
            return self._chat.text(token_ids)
        return self._chat.text(self._word_ids + token_ids).removeprefix(_WORD)
