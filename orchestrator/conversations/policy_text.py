"""The text of a policy's tokens after its prompt.

Decoding a response alone is not enough. SentencePiece tokenizers drop its first space. Also, text
that the policy writes only because its chat template writes it (a space, an empty think block, a
channel) is not part of the answer.
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
    """Decodes the responses of a policy.

    Args:
        chat: the policy's.
    """

    def __init__(self, chat: "Chat") -> None:
        self._chat = chat

    def of(self, token_ids: Ids) -> str:
        """Decode a response or a prefix of one, without ``lead``."""
        lead = self._lead_ids
        if not lead:
            return self._text_after_text(token_ids).removeprefix(self.lead)
        if lead[: len(token_ids)] == token_ids:
            return ""
        has_lead = token_ids[: len(lead)] == lead
        return self._text_after_text(token_ids[len(lead) :] if has_lead else token_ids)

    def ids_after_text(self, response: str) -> Ids:
        """Return token ids of a text after other text; of the text alone if the two merge."""
        word = self._word_ids
        both = self._chat.response_ids(f"{_WORD}{response}") if word else ()
        is_separate = bool(word) and both[: len(word)] == word
        return both[len(word) :] if is_separate else self._chat.response_ids(response)

    @cached_property
    def lead(self) -> str:
        """The text that a policy writes before a response because its template does.

        A space (Mistral), an empty think block (Qwen3), a channel (gpt-oss), or nothing.
        """
        begin = self._begin
        if not begin or not self._chat.frame.startswith(begin):
            return ""
        return self._chat.frame.removeprefix(begin)

    @cached_property
    def _lead_ids(self) -> Ids:
        """The tokens of the lead if it contains control tokens; else empty.

        Decoding drops those, so such a lead is removed as tokens and not as text.
        """
        ids = self._chat.marker_ids(self.lead) if self.lead else ()
        return ids if set(ids) & set(self._chat.control.ids) else ()

    @cached_property
    def _begin(self) -> str:
        """The text of a short prompt up to where a policy continues; "" if there is none."""
        if self._chat.template is None:
            return ""
        try:
            return self._chat.template.prompt([{"role": "user", "content": _WORD}])
        except TemplateRefuses:  # it rejects a single user turn
            return ""

    @cached_property
    def _word_ids(self) -> Ids:
        """Ids of a word after which a text keeps its first space; none if decoding keeps it."""
        chat = self._chat
        word, both = chat.response_ids(_WORD), chat.response_ids(f"{_WORD} {_WORD}")
        second = both[len(word) :]
        loses = self._begins_with_space(second) and chat.text(second) == chat.text(word) == _WORD
        if not loses or chat.template is None:
            return ()
        # After some prompts every text begins with an added space, which decoding must drop.
        begin = chat.encoded(self._begin)
        after_prompt = chat.encoded(f"{self._begin}{_WORD}")[len(begin) :]
        return () if self._begins_with_space(after_prompt) else word

    def _begins_with_space(self, token_ids: Ids) -> bool:
        names = self._chat.tokenizer.convert_ids_to_tokens(list(token_ids[:1]))
        return bool(names) and names[0].startswith(_SPACE)

    def _text_after_text(self, token_ids: Ids) -> str:
        """Decode tokens that follow other tokens, including a first space."""
        if not self._word_ids:
            return self._chat.text(token_ids)
        return self._chat.text(self._word_ids + token_ids).removeprefix(_WORD)
