"""Where the steps of a response end, in tokens.

Steps are the response's text between delimiters (a blank line, by custom); a step without anything
but white space is none. Tokens cut text as they like: a delimiter may fill a token, be spread over
several, or stand inside one, and a character may need several tokens. A step ends with the token
that completes its delimiter.
"""

from collections.abc import Sequence

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.stop_texts import INCOMPLETE
from orchestrator.search.engines import Ids

BLANK_LINE = "\n\n"  # the custom
LINE_END = "\n"  # Math-Shepherd's
_LONGEST_WAIT = 8  # tokens that one character may take: four bytes, and special tokens among them


class TextReader:
    """Reads a response token by token and says what text each token adds.

    Only the last few tokens are decoded for each: a text's decoding is that of its parts, but for
    white space at a part's beginning, hence the tokens before stand in front.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._window: Ids = ()  # the tokens before, and those whose text is not complete
        self._read = 0  # tokens of the window whose text is complete
        self._known = 0  # characters of the window's text that were given, or were

    def copy(self) -> "TextReader":
        """A reader that goes on from the same place."""
        other = TextReader(self._chat)
        other.__dict__.update(self.__dict__)
        return other

    def read(self, token_id: int) -> str:
        """The text that the next token adds; an incomplete character comes with its last token."""
        self._window += (token_id,)
        waits = len(self._window) - self._read <= _LONGEST_WAIT
        whole = self._chat.text(self._window)
        complete = whole.rstrip(INCOMPLETE) if waits else whole
        new = complete[self._known :]
        self._known = max(self._known, len(complete))
        if not waits or (new and complete == whole):
            self._window = self._window[self._read :]
            self._read = len(self._window)
            self._known = len(self._chat.text(self._window))
        return new


class StepReader:
    """Reads a response token by token and says which tokens end a step.

    Raises:
        ValueError: the delimiter is empty.
    """

    def __init__(self, chat: Chat, delimiter: str) -> None:
        if not delimiter:
            raise ValueError("the delimiter of steps is empty")
        self._texts, self._delimiter = TextReader(chat), delimiter
        self._step = ""  # text since the last delimiter

    def copy(self) -> "StepReader":
        """A reader that goes on from the same place."""
        other = object.__new__(StepReader)
        other.__dict__.update(self.__dict__)
        other._texts = self._texts.copy()
        return other

    def read(self, token_id: int) -> bool:
        """Whether this token, the next of the response, ends a step."""
        start = max(0, len(self._step) - len(self._delimiter) + 1)
        self._step += self._texts.read(token_id)
        ended = False
        while (found := self._step.find(self._delimiter, start)) >= 0:
            ended |= bool(self._step[:found].strip())
            self._step = self._step[found + len(self._delimiter) :]
            start = 0
        return ended


def step_ends(chat: Chat, response_ids: Sequence[int], delimiter: str) -> list[int]:
    """Token counts t, rising, with which y_<t ends a step: its delimiter is complete there.

    |y| is among them only where the response ends with a delimiter. The ends of a prefix are those
    of the whole that lie in it. Linear in the length.

    Raises:
        ValueError: the delimiter is empty.
    """
    reader = StepReader(chat, delimiter)
    return [t for t, token_id in enumerate(response_ids, 1) if reader.read(token_id)]


def extended_step_ends(
    chat: Chat, prefix_ids: Sequence[int], extensions: Sequence[Sequence[int]], delimiter: str
) -> list[list[int]]:
    """The step ends of a prefix with each of some extensions; the prefix is read once."""
    reader = StepReader(chat, delimiter)
    before = [t for t, token_id in enumerate(prefix_ids, 1) if reader.read(token_id)]
    found = []
    for extension in extensions:
        own = reader.copy()
        ends = [t for t, i in enumerate(extension, len(prefix_ids) + 1) if own.read(i)]
        found.append(before + ends)
    return found


def is_written(chat: Chat, delimiter: str) -> bool:
    """Whether a tokenizer keeps the delimiter, beside other text or apart from it."""
    written = (chat.text(chat.response_ids(text.format(delimiter))) for text in ("x{}x", "x {} x"))
    return any(delimiter in text for text in written)


def check_delimiter(chat: Chat, delimiter: str) -> None:
    """Raises ValueError where a tokenizer cannot write the delimiter.

    Those of most encoders turn line breaks into spaces: no step would ever be found.
    """
    if not is_written(chat, delimiter):
        raise ValueError(
            f"step_delimiter {delimiter!r}: the reward model's tokenizer does not keep it, so no"
            " step would be found; give a text that it keeps"
        )
