"""Stop texts: detects the sampled token that completes one of them.

A stop may begin or end within a token. So the last tokens are decoded and searched together, but
only after a token whose own text can hold the last character of a stop. Independent of models.
"""

from collections.abc import Sequence

from orchestrator.conversations.chat import Chat

INCOMPLETE = "\ufffd"  # decoded from bytes that are not a full character
# Tokens besides one per UTF-8 byte of a stop: special tokens, a character that is cut off.
_REACH = 8


class StopReader:
    """Detects stops in growing continuations; one object serves any number of them.

    Raises:
        ValueError: there is no stop, or an empty one.
    """

    def __init__(self, chat: Chat, stops: Sequence[str]) -> None:
        if not stops or "" in stops:
            raise ValueError(f"stops = {list(stops)}: valid: one or more nonempty texts")
        self._chat, self._stops = chat, tuple(stops)
        self._last = {stop[-1] for stop in stops}
        self._window = _REACH + max(len(stop.encode()) for stop in stops)
        self._candidates: dict[int, bool] = {}

    def completed(self, token_ids: Sequence[int]) -> bool:
        """Return whether the last token of a continuation completes a stop in its text.

        Assumes that no shorter prefix of the continuation holds a stop.
        """
        if not self._may_complete(token_ids[-1]):
            return False
        tail = self._chat.text(token_ids[-self._window :])
        return any(stop in tail for stop in self._stops)

    def _may_complete(self, token_id: int) -> bool:
        """Return whether a token's text can hold the last character of a stop.

        A token decoded alone lacks the white space that some tokenizers write before it.
        """
        if token_id not in self._candidates:
            text = self._chat.text((token_id,))
            matches = any(last in text for last in self._last) or INCOMPLETE in text
            self._candidates[token_id] = matches or any(last == " " for last in self._last)
        return self._candidates[token_id]
