"""A policy's responses in the tokens of a reward model with another tokenizer, tail by tail.

A search asks for a response and then for many that go on from it. What a tokenizer makes of a text
is decided word by word (its pre-tokenizer's words; merges do not cross them), read from the left,
so that only the last words of the known text can change when text is added. Those and the new text
are tokenized, and joined to the known tokens where both have a word beginning at the same character
with the same token. Where no such place is found (text without white space, tokenizers without
words) the whole is tokenized: the result is that of the whole text, always. The first tokens are
those behind a prompt, with which they may merge.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.response_border import ResponseBorder
from orchestrator.conversations.stop_texts import INCOMPLETE

Ids = tuple[int, ...]
WINDOW = 8  # policy tokens before the new ones that are written out again with them
WORDS = 5  # of white space between, that are tokenized again: one to begin in, two that may change
KEPT = 4_096  # responses


@dataclass(frozen=True)
class _Response:
    """A complete text, its tokens, and the tokens that begin a word by the character they are at.

    Of the last words only: ``starts`` is what the next tail may be joined to.
    """

    text: str
    token_ids: Ids
    starts: dict[int, int]
    tail: int | None  # the character from where on a longer text is tokenized again
    joins_until: int  # the character up to which no longer text has other tokens
    replaced: int  # tokens at the prompt's end that the first ones replace


class Retokenizer:
    """Gives a response of the policy in the model's own tokens.

    Args:
        policy: the tokenizer of the ids that come in.
        own: the reward model's.
    """

    def __init__(self, policy: Chat, own: Chat) -> None:
        self._policy, self._own = policy, own
        self._border = ResponseBorder(own)
        self._known: OrderedDict[Ids, _Response] = OrderedDict()

    def response(
        self, prefix_ids: Ids, extension: Ids = (), finished: bool = False
    ) -> tuple[int, Ids]:
        """How many tokens at the prompt's end a response replaces, and the tokens of its text.

        The text is written out whole and tokenized whole. A character of which the last tokens are
        still to come is not there yet. Fast where ``prefix_ids`` (the policy's, as ``extension``)
        were asked for before.
        """
        response = self._response(prefix_ids, extension)
        if finished:
            text = self._policy.response_text(prefix_ids + extension)
            is_cut = text.endswith(INCOMPLETE)  # a finished text is complete all the same
            if is_cut or self._border.rewrites(text) or text != self._border.without_end(text):
                return self._border.in_context(text, finished=True)
        return response.replaced, response.token_ids

    def _response(self, prefix_ids: Ids, extension: Ids = ()) -> _Response:
        whole = prefix_ids + extension
        response = self._known.get(whole)
        if response is None:
            if extension:
                self._response(prefix_ids)  # one whole text, then tails
                response = self._gone_on(self._known[prefix_ids], prefix_ids, extension)
            if response is None:
                text = _complete(self._policy.response_text(whole))
                if not self._border.rewrites(text):
                    text = self._border.without_begin(text)
                response = self._whole(text)
            self._known[whole] = response
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(whole)
        return response

    def _whole(self, text: str) -> _Response:
        """A text tokenized as a whole, behind a prompt."""
        if self._border.rewrites(text):
            replaced, token_ids = self._border.in_context(text)
            return _Response(text, token_ids, {}, None, 0, replaced)
        alone, starts = self._encoded(text)
        replaced, token_ids = self._border.in_context(text)
        # The words' first tokens are those of the text by itself, as far as both end alike.
        pairs = zip(reversed(alone), reversed(token_ids), strict=False)
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        shift = len(token_ids) - len(alone)
        behind = {at: n + shift for at, n in starts.items() if n >= len(alone) - alike}
        return _response(text, token_ids, behind, replaced)

    def _gone_on(self, before: _Response, prefix_ids: Ids, extension: Ids) -> _Response | None:
        """Of the text only the end is written out; None where that is not sure."""
        window = prefix_ids[-WINDOW:]
        head = _complete(self._policy.text(window))
        both = self._policy.text(window + extension)
        if not head or not both.startswith(head) or not before.text.endswith(head):
            return None
        text = _complete(before.text + both[len(head) :])
        if self._border.rewrites(text):
            return None
        return self._joined(before, self._border.without_begin(text))

    def _joined(self, before: _Response, text: str) -> _Response | None:
        """The tokens known, up to the last words, and those of the rest."""
        if before.tail is None:
            return None
        token_ids, starts = self._encoded(text[before.tail :])
        for place, number in starts.items():
            place += before.tail
            known = before.starts.get(place)
            if place > before.joins_until:
                return None
            # Not the tail's first word: it may lack the white space that is a part of it.
            if number and known is not None and before.token_ids[known] == token_ids[number]:
                whole = before.token_ids[:known] + token_ids[number:]
                kept = {start: n for start, n in before.starts.items() if start < place}
                # Not the tail's starts before the join: it may have begun within a word.
                new = {
                    before.tail + start: known - number + n
                    for start, n in starts.items()
                    if n >= number
                }
                return _response(text, whole, new | kept, before.replaced)
        return None

    def _encoded(self, text: str) -> tuple[Ids, dict[int, int]]:
        """Token ids, and the first tokens of words by their characters."""
        encoding = self._own.control.content_encoding(text)
        if encoding is None:
            return self._own.response_ids(text), {}
        starts: dict[int, int] = {}
        words, offsets = encoding.word_ids, encoding.offsets
        for i, word in enumerate(words):
            if i == 0 or word is None or word != words[i - 1]:
                starts.setdefault(offsets[i][0], i)
        return tuple(encoding.ids), starts


def _complete(text: str) -> str:
    return text.rstrip(INCOMPLETE)


def _response(text: str, token_ids: Ids, starts: dict[int, int], replaced: int) -> _Response:
    """With what the next tail needs: where it begins, and what it may be joined to."""
    places = _word_starts(text)
    if len(places) < WORDS:
        return _Response(text, token_ids, {}, None, 0, replaced)
    tail, last = places[0], places[-2]
    near = {place: n for place, n in starts.items() if tail <= place}
    return _Response(text, token_ids, near, tail, last, replaced)


def _word_starts(text: str) -> Sequence[int]:
    """Where the last ``WORDS`` words of a text begin, white space being what is between words."""
    places: list[int] = []
    end = len(text.rstrip())
    while end and len(places) < WORDS:
        start = end
        while start and not text[start - 1].isspace():
            start -= 1
        places.append(start)
        end = len(text[:start].rstrip())
    return places[::-1]
