"""Incremental retokenization: a policy's responses in the tokens of a reward model.

A search scores a response and then many continuations of it. A tokenizer splits text from the left
into words (of its pre-tokenizer; merges do not cross them), so only the last words of the cached
text can change when text is appended. These words and the new text are tokenized, and joined to the
cached tokens where both have a word that begins at the same character with the same token. If there
is no such character (text without white space, tokenizers without words), the full text is
tokenized: the result always equals that of the full text. The first tokens are those after a
prompt, with which they may merge.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.response_border import ResponseBorder
from orchestrator.conversations.stop_texts import INCOMPLETE

Ids = tuple[int, ...]
WINDOW = 8  # policy tokens before the new ones that are decoded with them
WORDS = 5  # last words, separated by white space, from which a continuation is tokenized again
CACHE_SIZE = 4_096  # responses


@dataclass(frozen=True)
class _Tokenized:
    """A cached text without an incomplete last character, and its tokens.

    ``starts`` maps the character where a word begins to the index of its first token, for the last
    words only: a continuation is joined at one of them.
    """

    text: str
    token_ids: Ids
    starts: dict[int, int]
    tail_start: int | None  # the character from which a continuation is tokenized again
    stable_until: int  # the character before which no continuation has other tokens
    replaced: int  # tokens at the prompt's end that the first tokens replace


class Retokenizer:
    """Converts responses of a policy to a reward model's tokens.

    Args:
        policy: the chat of the policy, whose ids come in.
        reward: the chat of the reward model.
    """

    def __init__(self, policy: Chat, reward: Chat) -> None:
        self._policy, self._reward = policy, reward
        self._border = ResponseBorder(reward)
        self._cache: OrderedDict[Ids, _Tokenized] = OrderedDict()

    def response(
        self, prefix_ids: Ids, extension: Ids = (), finished: bool = False
    ) -> tuple[int, Ids]:
        """Return how many tokens at the prompt's end a response replaces, and its tokens.

        The tokens are those of the full decoded text. An incomplete last character is left out
        unless the response is finished. Fast if ``prefix_ids`` are cached.

        Args:
            prefix_ids: policy tokens.
            extension: policy tokens after the prefix.
            finished: whether the response is finished.
        """
        tokenized = self._tokenized(prefix_ids, extension)
        if finished:
            text = self._policy.response_text(prefix_ids + extension)
            ends_incomplete = text.endswith(INCOMPLETE)
            if (
                ends_incomplete
                or self._border.rewrites(text)
                or text != self._border.without_end(text)
            ):
                return self._border.in_context(text, finished=True)
        return tokenized.replaced, tokenized.token_ids

    def _tokenized(self, prefix_ids: Ids, extension: Ids = ()) -> _Tokenized:
        token_ids = prefix_ids + extension
        tokenized = self._cache.get(token_ids)
        if tokenized is None:
            if extension:
                self._tokenized(prefix_ids)  # caches the full prefix
                tokenized = self._extended(self._cache[prefix_ids], prefix_ids, extension)
            if tokenized is None:
                text = _complete(self._policy.response_text(token_ids))
                if not self._border.rewrites(text):
                    text = self._border.without_begin(text)
                tokenized = self._full(text)
            self._cache[token_ids] = tokenized
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        self._cache.move_to_end(token_ids)
        return tokenized

    def _full(self, text: str) -> _Tokenized:
        """Tokenize a full text after a prompt."""
        if self._border.rewrites(text):
            replaced, token_ids = self._border.in_context(text)
            return _Tokenized(text, token_ids, {}, None, 0, replaced)
        alone, starts = self._encoded(text)
        replaced, token_ids = self._border.in_context(text)
        # Word starts are those of the text alone, within the suffix that both tokenizations share.
        pairs = zip(reversed(alone), reversed(token_ids), strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        shift = len(token_ids) - len(alone)
        shifted = {at: n + shift for at, n in starts.items() if n >= len(alone) - shared}
        return _with_starts(text, token_ids, shifted, replaced)

    def _extended(self, cached: _Tokenized, prefix_ids: Ids, extension: Ids) -> _Tokenized | None:
        """Extend a cached response by decoding only its end; None if that may be inexact."""
        window = prefix_ids[-WINDOW:]
        head = _complete(self._policy.text(window))
        both = self._policy.text(window + extension)
        if not head or not both.startswith(head) or not cached.text.endswith(head):
            return None
        text = _complete(cached.text + both[len(head) :])
        if self._border.rewrites(text):
            return None
        return self._joined(cached, self._border.without_begin(text))

    def _joined(self, cached: _Tokenized, text: str) -> _Tokenized | None:
        """Tokenize the tail of ``text`` and join it to the cached tokens; None if they differ."""
        if cached.tail_start is None:
            return None
        tail_ids, tail_starts = self._encoded(text[cached.tail_start :])
        for offset, index in tail_starts.items():
            character = offset + cached.tail_start
            cached_index = cached.starts.get(character)
            if character > cached.stable_until:
                return None
            # Not the tail's first word: it may lack the white space that belongs to it.
            if (
                index
                and cached_index is not None
                and cached.token_ids[cached_index] == tail_ids[index]
            ):
                token_ids = cached.token_ids[:cached_index] + tail_ids[index:]
                earlier = {start: n for start, n in cached.starts.items() if start < character}
                # Not the tail's starts before the join: it may begin within a word.
                new = {
                    cached.tail_start + start: cached_index - index + n
                    for start, n in tail_starts.items()
                    if n >= index
                }
                return _with_starts(text, token_ids, new | earlier, cached.replaced)
        return None

    def _encoded(self, text: str) -> tuple[Ids, dict[int, int]]:
        """Return token ids, and the index of each word's first token by its character."""
        encoding = self._reward.control.content_encoding(text)
        if encoding is None:
            return self._reward.response_ids(text), {}
        starts: dict[int, int] = {}
        words, offsets = encoding.word_ids, encoding.offsets
        for i, word in enumerate(words):
            if i == 0 or word is None or word != words[i - 1]:
                starts.setdefault(offsets[i][0], i)
        return tuple(encoding.ids), starts


def _complete(text: str) -> str:
    return text.rstrip(INCOMPLETE)


def _with_starts(text: str, token_ids: Ids, starts: dict[int, int], replaced: int) -> _Tokenized:
    """Return a response with the starts of its last words, where a continuation may be joined."""
    word_starts = _word_starts(text)
    if len(word_starts) < WORDS:
        return _Tokenized(text, token_ids, {}, None, 0, replaced)
    tail_start, stable_until = word_starts[0], word_starts[-2]
    tail_tokens = {start: n for start, n in starts.items() if tail_start <= start}
    return _Tokenized(text, token_ids, tail_tokens, tail_start, stable_until, replaced)


def _word_starts(text: str) -> Sequence[int]:
    """Return where the last ``WORDS`` words of a text begin; white space separates words."""
    starts: list[int] = []
    end = len(text.rstrip())
    while end and len(starts) < WORDS:
        start = end
        while start and not text[start - 1].isspace():
            start -= 1
        starts.append(start)
        end = len(text[:start].rstrip())
    return starts[::-1]
