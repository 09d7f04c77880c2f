r"""A response as a step-tag model reads it: tags written in, delimiters left out or moved.

The public models read "step<tag>step<tag>": a delimiter of white space is left out (as by
Qwen2.5-Math-PRM and TRL) or stands behind the tag (Math-Shepherd: "step ки\nstep ки"). One with
other text, a full stop say, belongs to its step and stays. A step of white space is none, and goes
with its delimiter.

A step's tokens stay as they are but where one holds the step's end and the delimiter (".\n\n"):
the step is then tokenized by itself, as public code does it. Of a token that holds the delimiter
and the next step's beginning, that piece is tokenized. Where the tokenizer cannot (it writes
another text, or begins the step otherwise) the token stays whole, in front of the tag. Knows no
model.
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
    """What is written into a response.

    Attributes:
        tag_ids: the step tag's tokens; a step's reward is read at the last.
        delimiter: text that ends a step; None: the whole response is one step.
        delimiter_ids: its tokens where the response's own cannot be taken.
        moved: whether a delimiter of white space stands behind the tag; if not, it is left out.
        between_ids: what else stands behind a tag, in front of the next step.
        trims: whether white space at a step's ends is left out, as of steps that are turns.
    """

    tag_ids: Ids
    delimiter: str | None
    delimiter_ids: Ids = ()
    moved: bool = False
    between_ids: Ids = ()
    trims: bool = False


@dataclass(frozen=True)
class Reading:
    """Where a step's reward is read: at the end of ``tail``, or of what stands before it.

    ``tail`` stands behind the first ``start`` tokens of a tagged response.
    """

    start: int
    tail: Ids = ()

    def branch(self, trunk: Ids) -> Branch:
        """As a branch, as short as can be, of a trunk with the same first ``start`` tokens."""
        shared = 0
        for own, other in zip(self.tail, trunk[self.start :], strict=False):
            if own != other:
                break
            shared += 1
        return Branch(self.start + shared, self.tail[shared:])


class TaggedText:
    """A response that is read token by token and written with its tags.

    Attributes:
        closed: tokens up to the last complete step's tag, that included.
        ends: how many tokens of ``closed`` each complete step ends at, rising.
    """

    def __init__(self, chat: Chat, form: TagFormat) -> None:
        self._chat, self._form, self._reader = chat, form, TextReader(chat)
        self.closed: Ids = ()
        self.ends: tuple[int, ...] = ()
        self._between: Ids = ()  # what stands between the last tag and the next step
        self._parts: list[_Part] = []  # of the step that is not complete
        self._text = ""  # what they add

    def copy(self) -> "TaggedText":
        """The same, to be gone on with by itself."""
        other = TaggedText(self._chat, self._form)
        other.__dict__.update(self.__dict__)
        other._reader, other._parts = self._reader.copy(), list(self._parts)
        return other

    def read(self, token_ids: Ids) -> None:
        """Goes on with the response's next tokens."""
        delimiter = self._form.delimiter
        for token_id in token_ids:
            if delimiter is None:
                self._parts.append(((token_id,), self._reader.read(token_id)))
                self._text += self._parts[-1][1]
                continue
            start = max(0, len(self._text) - len(delimiter) + 1)
            text = self._reader.read(token_id)
            self._parts.append(((token_id,), text))
            self._text += text
            while (found := self._text.find(delimiter, start)) >= 0:
                self._end_step(found, found + len(delimiter))
                start = 0

    @property
    def token_ids(self) -> Ids:
        """All tokens, those of a step that is not complete as they came."""
        return self.closed + (self._between + _ids(self._parts) if self._parts else ())

    def readings(self, every: bool, known: int | None = None) -> list[Reading]:
        """Where the rewards of the steps are read, of ``every`` one or the last alone.

        The last step may be incomplete. A response that ends inside or right behind a delimiter
        ends with the step before it; an empty one is a step. None starts behind ``known`` tokens.
        """
        most = len(self.closed) if known is None else known
        complete = [self._reading(end, (), most) for end in self.ends]
        own = self._open_ids()
        if own or not complete:
            tail = self._between + own + self._form.tag_ids
            complete.append(self._reading(len(self.closed), tail, most))
        return complete if every else complete[-1:]

    def _reading(self, end: int, tail: Ids, most: int) -> Reading:
        start = min(end, most)
        return Reading(start, self.closed[start:end] + tail)

    def _open_ids(self) -> Ids:
        """The incomplete step's tokens, without what may begin a delimiter; none of white space."""
        delimiter, text = self._form.delimiter, self._text
        if not text.strip():
            return ()
        if self._form.trims:
            return self._trimmed(len(text)) or _ids(self._parts)
        begun = 0
        if delimiter is not None and delimiter.isspace():
            begun = max(n for n in range(len(delimiter)) if text.endswith(delimiter[:n]))
        found = self._ids_before(len(text) - begun) if begun else None
        return _ids(self._parts) if found is None else found

    def _end_step(self, first: int, end: int) -> None:
        """Writes the step whose delimiter takes the characters from ``first`` to ``end``."""
        blank = str(self._form.delimiter).isspace()
        last = first if blank else end  # of the step's own characters
        own = self._trimmed(last) if self._form.trims else self._ids_before(last)
        rest = self._parts_after(end)
        behind = self._text[end:]
        if not self._text[:first].strip():
            rest = [(self._parts[-1][0], behind)] if rest is None else rest
        else:
            moved = self._delimiter_ids(first, end) if self._form.moved and first == last else ()
            if own is None or rest is None:
                own, rest, moved = _ids(self._parts), [((), behind)], ()
            if own:
                self.closed += self._between + own + self._form.tag_ids
                self.ends += (len(self.closed),)
                self._between = self._form.between_ids + moved
        self._text, self._parts = behind, rest

    def _trimmed(self, at: int) -> Ids | None:
        """As ``_ids_before``, without the white space at both ends.

        The first step's beginning was trimmed with the response's; a space there is the prompt's.
        """
        text = self._text[:at]
        if self.closed and text.strip() and text[0].isspace():
            return self._written(text.strip())
        return self._ids_before(len(text.rstrip()))

    def _ids_before(self, at: int) -> Ids | None:
        """The tokens of the first ``at`` characters; None where the tokenizer cannot write them."""
        count, stop = self._beginning_before(at)
        if stop == at:
            return _ids(self._parts[:count])
        text = self._text[:at]
        found = self._written(text)
        alike = count == 1 or (found and found[:1] == self._parts[0][0][:1])
        return found if alike else None

    def _parts_after(self, at: int) -> list[_Part] | None:
        """The parts from character ``at`` on; None where the tokenizer cannot write the first."""
        count, stop = self._beginning_before(at)
        after = self._parts[count:]
        if stop == at:
            return after
        text = self._text[at:stop]
        found = self._written(text)
        return None if found is None else [(found, text), *after]

    def _delimiter_ids(self, first: int, end: int) -> Ids:
        (before, start), (count, stop) = (self._beginning_before(at) for at in (first, end))
        if (start, stop) == (first, end):
            return _ids(self._parts[before:count])
        return self._form.delimiter_ids

    def _beginning_before(self, at: int) -> tuple[int, int]:
        """How many parts begin before character ``at``, and where the last of them ends."""
        count, stop = len(self._parts), len(self._text)
        while count and stop - len(self._parts[count - 1][1]) >= at:
            count -= 1
            stop -= len(self._parts[count][1])
        return count, stop

    def _written(self, text: str) -> Ids | None:
        """A text's own tokens; None where they do not say it, or it holds broken characters."""
        found = self._chat.response_ids(text)
        return found if INCOMPLETE not in text and self._chat.text(found) == text else None


def _ids(parts: Sequence[_Part]) -> Ids:
    return tuple(token_id for ids, _ in parts for token_id in ids)
