r"""Writes the tags of a step-tag model into a response.

The public models read "step<tag>step<tag>": a delimiter of white space is removed
(Qwen2.5-Math-PRM and TRL) or moved after the tag (Math-Shepherd: "step ки\nstep ки"). A delimiter
with other text, such as a full stop, belongs to its step. White space alone is not a step and is
removed with its delimiter.

The tokens of a step are kept, unless one token holds the end of the step and the delimiter
(".\n\n"): then the text of the step is tokenized, as public code does. If a token holds the
delimiter and the beginning of the next step, the text of that beginning is tokenized. If the
tokenizer does not reproduce the text, or begins the step with other tokens, the token is kept
before the tag.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.stop_texts import INCOMPLETE
from orchestrator.rewards.packed import Branch
from orchestrator.scorers.steps import TextReader
from orchestrator.search.engines import Ids

_Part = tuple[Ids, str]  # tokens, and the text that they add


@dataclass(frozen=True)
class TagFormat:
    """The tags and delimiters that are written into a response.

    Attributes:
        tag_ids: tokens of the step tag; the reward of a step is read at the last one.
        delimiter: text that ends a step; None: the response is one step.
        delimiter_ids: its tokens, used if those of the response hold other text too.
        moved: whether a delimiter of white space is moved after the tag; if not, it is removed.
        between_ids: further tokens between a tag and the next step.
        trims: whether white space at the ends of a step is removed, as for steps that are turns.
    """

    tag_ids: Ids
    delimiter: str | None
    delimiter_ids: Ids = ()
    moved: bool = False
    between_ids: Ids = ()
    trims: bool = False


@dataclass(frozen=True)
class ScoredText:
    """A text at whose last token the reward of a step is read.

    The text is the first ``start`` tokens of a tagged response, followed by ``tail``.
    """

    start: int
    tail: Ids = ()

    def branch(self, trunk: Ids) -> Branch:
        """Return the shortest branch for it of a trunk with the same first ``start`` tokens."""
        shared = 0
        for token, trunk_token in zip(self.tail, trunk[self.start :], strict=False):
            if token != trunk_token:
                break
            shared += 1
        return Branch(self.start + shared, self.tail[shared:])


class TaggedText:
    """A response that is read token by token and written with tags.

    Attributes:
        closed: tokens up to the tag of the last complete step, with the tag.
        ends: for each complete step, the number of tokens of ``closed`` up to its end, rising.
    """

    def __init__(self, chat: Chat, tag_format: TagFormat) -> None:
        self._chat, self._format, self._reader = chat, tag_format, TextReader(chat)
        self.closed: Ids = ()
        self.ends: tuple[int, ...] = ()
        self._between: Ids = ()  # tokens between the last tag and the next step
        self._parts: list[_Part] = []  # parts of the incomplete step
        self._text = ""  # text of the incomplete step

    def copy(self) -> "TaggedText":
        """Return an independent copy."""
        other = TaggedText(self._chat, self._format)
        other.__dict__.update(self.__dict__)
        other._reader, other._parts = self._reader.copy(), list(self._parts)
        return other

    def read(self, token_ids: Ids) -> None:
        """Read the next tokens of the response."""
        delimiter = self._format.delimiter
        for token_id in token_ids:
            if delimiter is None:
                self._parts.append(((token_id,), self._reader.read(token_id)))
                self._text += self._parts[-1][1]
                continue
            start = max(0, len(self._text) - len(delimiter) + 1)
            text = self._reader.read(token_id)
            self._parts.append(((token_id,), text))
            self._text += text
            while (first := self._text.find(delimiter, start)) >= 0:
                self._end_step(first, first + len(delimiter))
                start = 0

    @property
    def token_ids(self) -> Ids:
        """All tokens; those of an incomplete step are unchanged."""
        return self.closed + (self._between + _ids(self._parts) if self._parts else ())

    def scored_texts(self, every: bool, limit: int | None = None) -> list[ScoredText]:
        """Return the texts at whose ends the rewards of ``every`` step, or of the last, are read.

        The last step may be incomplete. A response that ends in or after a delimiter ends with the
        step before it; an empty response is one step. No text starts after ``limit`` tokens.
        """
        most = len(self.closed) if limit is None else limit
        complete = [self._scored_text(end, (), most) for end in self.ends]
        open_ids = self._open_ids()
        if open_ids or not complete:
            tail = self._between + open_ids + self._format.tag_ids
            complete.append(self._scored_text(len(self.closed), tail, most))
        return complete if every else complete[-1:]

    def _scored_text(self, end: int, tail: Ids, most: int) -> ScoredText:
        start = min(end, most)
        return ScoredText(start, self.closed[start:end] + tail)

    def _open_ids(self) -> Ids:
        """Return the tokens of the incomplete step, without the beginning of a delimiter.

        White space alone has none.
        """
        delimiter, text = self._format.delimiter, self._text
        if not text.strip():
            return ()
        if self._format.trims:
            return self._trimmed(len(text)) or _ids(self._parts)
        begun = 0
        if delimiter is not None and delimiter.isspace():
            begun = max(n for n in range(len(delimiter)) if text.endswith(delimiter[:n]))
        ids = self._ids_before(len(text) - begun) if begun else None
        return _ids(self._parts) if ids is None else ids

    def _end_step(self, first: int, end: int) -> None:
        """Write the step whose delimiter has the characters from ``first`` to ``end``."""
        blank = str(self._format.delimiter).isspace()
        last = first if blank else end  # end of the step's characters
        step_ids = self._trimmed(last) if self._format.trims else self._ids_before(last)
        parts = self._parts_after(end)
        remaining = self._text[end:]
        if not self._text[:first].strip():
            parts = [(self._parts[-1][0], remaining)] if parts is None else parts
        else:
            moved = self._delimiter_ids(first, end) if self._format.moved and first == last else ()
            if step_ids is None or parts is None:
                step_ids, parts, moved = _ids(self._parts), [((), remaining)], ()
            if step_ids:
                self.closed += self._between + step_ids + self._format.tag_ids
                self.ends += (len(self.closed),)
                self._between = self._format.between_ids + moved
        self._text, self._parts = remaining, parts

    def _trimmed(self, at: int) -> Ids | None:
        """Return ``_ids_before`` without white space at both ends.

        The beginning of the first step is trimmed with the response; a space there belongs to the
        prompt.
        """
        text = self._text[:at]
        if self.closed and text.strip() and text[0].isspace():
            return self._written(text.strip())
        return self._ids_before(len(text.rstrip()))

    def _ids_before(self, at: int) -> Ids | None:
        """Return the tokens of the first ``at`` characters; None if they change the text."""
        count, stop = self._beginning_before(at)
        if stop == at:
            return _ids(self._parts[:count])
        text = self._text[:at]
        ids = self._written(text)
        same_begin = count == 1 or (ids and ids[:1] == self._parts[0][0][:1])
        return ids if same_begin else None

    def _parts_after(self, at: int) -> list[_Part] | None:
        """Return the parts from character ``at`` on; None if the tokenizer changes the first."""
        count, stop = self._beginning_before(at)
        after = self._parts[count:]
        if stop == at:
            return after
        text = self._text[at:stop]
        ids = self._written(text)
        return None if ids is None else [(ids, text), *after]

    def _delimiter_ids(self, first: int, end: int) -> Ids:
        (before, start), (count, stop) = (self._beginning_before(at) for at in (first, end))
        if (start, stop) == (first, end):
            return _ids(self._parts[before:count])
        return self._format.delimiter_ids

    def _beginning_before(self, at: int) -> tuple[int, int]:
        """Return the number of parts that begin before ``at``, and the end of the last one."""
        count, stop = len(self._parts), len(self._text)
        while count and stop - len(self._parts[count - 1][1]) >= at:
            count -= 1
            stop -= len(self._parts[count][1])
        return count, stop

    def _written(self, text: str) -> Ids | None:
        """Return the tokens of a text; None if they change it or a character is incomplete."""
        ids = self._chat.response_ids(text)
        return ids if INCOMPLETE not in text and self._chat.text(ids) == text else None


def _ids(parts: Sequence[_Part]) -> Ids:
    return tuple(token_id for ids, _ in parts for token_id in ids)
