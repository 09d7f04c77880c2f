"""Finds where the steps of a response end, in tokens.

Steps are the text of the response between delimiters (a blank line by default); white space alone
is not a step. A delimiter may be a token, several tokens or a part of one, and a character may need
several tokens. A step ends with the token that completes its delimiter.
"""

from collections.abc import Sequence

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.stop_texts import INCOMPLETE
from orchestrator.search.engines import Ids

_LONGEST_WAIT = 8  # tokens of one character at most: four bytes, with special tokens between


class TextReader:
    """Reads a response token by token and returns the text that each token adds.

    For each token only the last few are decoded: the decoding of a text is that of its parts,
    except for white space at the beginning of a part, so that earlier tokens precede it.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._window: Ids = ()  # earlier tokens, and those whose text is incomplete
        self._read = 0  # tokens of the window whose text is complete
        self._returned = 0  # characters of the window's text that were returned

    def copy(self) -> "TextReader":
        """Return a reader that continues from the same position."""
        other = TextReader(self._chat)
        other.__dict__.update(self.__dict__)
        return other

    def read(self, token_id: int) -> str:
        """Return the text that a token adds; a character comes with its last token."""
        self._window += (token_id,)
        waits = len(self._window) - self._read <= _LONGEST_WAIT
        text = self._chat.text(self._window)
        complete = text.rstrip(INCOMPLETE) if waits else text
        new = complete[self._returned :]
        self._returned = max(self._returned, len(complete))
        if not waits or (new and complete == text):
            self._window = self._window[self._read :]
            self._read = len(self._window)
            self._returned = len(self._chat.text(self._window))
        return new


class StepReader:
    """Reads a response token by token and returns which tokens end a step.

    Raises:
        ValueError: the delimiter is empty.
    """

    def __init__(self, chat: Chat, delimiter: str) -> None:
        if not delimiter:
            raise ValueError("the delimiter of steps is empty")
        self._texts, self._delimiter = TextReader(chat), delimiter
        self._step = ""  # text since the last delimiter

    def copy(self) -> "StepReader":
        """Return a reader that continues from the same position."""
        other = object.__new__(StepReader)
        other.__dict__.update(self.__dict__)
        other._texts = self._texts.copy()
        return other

    def read(self, token_id: int) -> bool:
        """Return whether the next token of the response ends a step."""
        start = max(0, len(self._step) - len(self._delimiter) + 1)
        self._step += self._texts.read(token_id)
        ended = False
        while (end := self._step.find(self._delimiter, start)) >= 0:
            ended |= bool(self._step[:end].strip())
            self._step = self._step[end + len(self._delimiter) :]
            start = 0
        return ended


def step_ends(chat: Chat, response_ids: Sequence[int], delimiter: str) -> list[int]:
    """Return the rising token counts t at which y_<t ends a step with its complete delimiter.

    |y| is among them only if the response ends with a delimiter. The ends in a prefix are those of
    the response that lie in it. The cost is linear in the length.

    Raises:
        ValueError: the delimiter is empty.
    """
    reader = StepReader(chat, delimiter)
    return [t for t, token_id in enumerate(response_ids, 1) if reader.read(token_id)]


def extended_step_ends(
    chat: Chat, prefix_ids: Sequence[int], extensions: Sequence[Sequence[int]], delimiter: str
) -> list[list[int]]:
    """Return the step ends of a prefix with each extension; the prefix is read once."""
    reader = StepReader(chat, delimiter)
    before = [t for t, token_id in enumerate(prefix_ids, 1) if reader.read(token_id)]
    results = []
    for extension in extensions:
        reader_copy = reader.copy()
        ends = [t for t, i in enumerate(extension, len(prefix_ids) + 1) if reader_copy.read(i)]
        results.append(before + ends)
    return results


def is_written(chat: Chat, delimiter: str) -> bool:
    """Return whether a tokenizer keeps the delimiter, next to other text or between spaces."""
    written = (chat.text(chat.response_ids(text.format(delimiter))) for text in ("x{}x", "x {} x"))
    return any(delimiter in text for text in written)


def lost_in_tokens(model: str) -> str:
    """Return the error for a delimiter that the tokenizer of a model does not keep."""
    return (
        f"{model}'s tokenizer loses this text when it encodes and decodes it, so no step would end;"
        " valid: a text that is unchanged after encoding and decoding, such as '.'"
    )


def check_delimiter(chat: Chat, delimiter: str) -> None:
    """Raise ValueError if a reward model's tokenizer does not keep the delimiter.

    Most tokenizers of encoders turn line breaks into spaces, so that no step would end.
    """
    if not is_written(chat, delimiter):
        raise ValueError(f"step_delimiter = {delimiter!r}: {lost_in_tokens('the reward model')}")
