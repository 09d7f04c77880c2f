"""Texts at which sampling stops: which sampled token completes one of them.

Tokens cut text as they like, so that only decoding tells; what is decoded is little, since few
tokens hold the last character of a stop. Knows no model.
"""

from collections.abc import Sequence

from orchestrator.conversations.chat import Chat

INCOMPLETE = "\ufffd"  # what a tokenizer writes for bytes that are no character by themselves
_REACH = 8  # tokens beside a stop's own characters: those of a split character, special ones


class StopReader:
    """Reads continuations as they grow, for some stops; one serves any number of them.

    Raises:
        ValueError: there is no stop, or an empty one.
    """

    def __init__(self, chat: Chat, stops: Sequence[str]) -> None:
        if not stops or "" in stops:
            raise ValueError(f"stops = {list(stops)}: valid are texts that are not empty")
        self._chat, self._stops = chat, tuple(stops)
        self._last = {stop[-1] for stop in stops}
        self._window = _REACH + max(map(len, stops))
        self._known: dict[int, bool] = {}

    def completed(self, token_ids: Sequence[int]) -> bool:
        """Whether the last one of a continuation's tokens completes a stop in its text.

        All shorter beginnings of the continuation are taken to hold none.
        """
        if not self._may_complete(token_ids[-1]):
            return False
        tail = self._chat.text(token_ids[-self._window :])
        return any(stop in tail for stop in self._stops)

    def _may_complete(self, token_id: int) -> bool:
        """Whether a token's text can hold the last character of a stop.

        By itself a token loses the white space that some tokenizers write before it.
        """
        if token_id not in self._known:
            text = self._chat.text((token_id,))
            held = any(last in text for last in self._last) or INCOMPLETE in text
            self._known[token_id] = held or any(last == " " for last in self._last)
        return self._known[token_id]
