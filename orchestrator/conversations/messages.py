"""Every public spelling of a conversation as messages ``{"role": ..., "content": text}``.

Text, message lists, ShareGPT (``from``, ``value``), content as a list of parts, other names of the
roles, and lists of turns as JSON text (LMSYS). Knows nothing of data sets, of tokens or of models.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.data.rejects import BadRow, field, response, text
from orchestrator.records import Message

SYNONYMS = {
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "model", "bot"),
    "system": ("system",),
}
ROLES = {name: role for role, names in SYNONYMS.items() for name in names}
EMPTY_PROMPT = "empty prompt"
NOT_TO_THE_USER = "conversation does not end with the user"
NOT_BY_THE_ASSISTANT = "wrong type: {} does not end with the assistant"
NOT_A_LIST = "wrong type: {} is not a list of messages"
NOT_A_MESSAGE = "wrong type: {} holds what is not a message"
UNKNOWN_ROLE = f"unknown role, valid are {', '.join(ROLES)}"
NOT_TEXT_PART = 'content part that is not text, valid is {"type": "text", "text": ...} alone'
TURNS_ALONE = (
    "a list of user turns without the answers between them, valid is one turn, or a list of answers"
    " as long as that of the turns"
)

Conversation = tuple[Message, ...]
Turns = list[str | None]


def messages(name: str, value: Any) -> Conversation:
    """``value`` as messages, ``role`` and ``content`` only, whatever the last role is.

    Args:
        name: of the field, for the reason of a reject.
        value: a list of ``role`` and ``content``, or of ShareGPT's ``from`` and ``value``. Content
            is text or a list of text parts, which are joined with nothing between them, as chat
            templates write them.

    Raises:
        BadRow: with the reason.
    """
    if not isinstance(value, (list, tuple)):
        raise BadRow(NOT_A_LIST.format(name))
    return tuple(_message(name, item) for item in value)


def conversation(name: str, value: Any) -> Conversation:
    """``value``, text or a list of messages, as a prompt that the assistant is to answer.

    Text that is a JSON list of one text is that text.

    Raises:
        BadRow: with the reason; ``TURNS_ALONE`` for a JSON list of several texts.
    """
    if isinstance(value, str):
        user_turns = turns(value)
        if user_turns is not None and len(user_turns) > 1:
            raise BadRow(TURNS_ALONE)
        value = [{"role": "user", "content": value if user_turns is None else user_turns[0] or ""}]
    return to_the_user(messages(name, value))


def to_the_user(prompt: Conversation) -> Conversation:
    """``prompt`` itself, checked: its last message is the user's, and says something."""
    if not prompt:
        raise BadRow(EMPTY_PROMPT)
    if prompt[-1]["role"] != "user":
        raise BadRow(NOT_TO_THE_USER)
    if not prompt[-1]["content"].strip():
        raise BadRow(EMPTY_PROMPT)
    return prompt


def answered(name: str, value: Any) -> tuple[Conversation, str]:
    """The messages before the response (none where it stands alone), and the response.

    Args:
        name: of the field, for the reason of a reject.
        value: text, one message of the assistant, or messages that end with one.

    Raises:
        BadRow: with the reason.
    """
    if isinstance(value, str):
        return (), response(name, value)
    parsed = (_message(name, value),) if isinstance(value, Mapping) else messages(name, value)
    if not parsed or parsed[-1]["role"] != "assistant":
        raise BadRow(NOT_BY_THE_ASSISTANT.format(name))
    return parsed[:-1], response(name, parsed[-1]["content"])


def turns(value: Any) -> Turns | None:
    """The texts and nulls of a JSON list in a text; None where the text is no such list."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return None
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return parsed if are_turns(parsed) else None


def are_turns(value: Any) -> bool:
    """Whether a value is a list of texts and nulls, and not empty."""
    listed = isinstance(value, list) and bool(value)
    return listed and all(item is None or isinstance(item, str) for item in value)


def interleaved(name: str, user_turns: Turns, answers: Turns) -> tuple[Conversation, str]:
    """User turns and the answers to them: the messages before the last answer, and that answer.

    Raises:
        BadRow: there are not as many answers as turns, or one of them is null or empty.
    """
    if len(user_turns) != len(answers):
        raise BadRow(TURNS_ALONE)
    parsed: list[Message] = []
    for question, answer in zip(user_turns, answers, strict=True):
        parsed.append({"role": "user", "content": text("prompt", question or "")})
        parsed.append({"role": "assistant", "content": response(name, answer or "")})
    return to_the_user(tuple(parsed[:-1])), parsed[-1]["content"]


def alike(first: Sequence[Message], second: Sequence[Message]) -> bool:
    """Whether two conversations say the same, up to white space around a content."""
    return plain(first) == plain(second)


def plain(conversation: Sequence[Message]) -> list[list[str]]:
    """Roles and contents without outer white space."""
    return [[message["role"], message["content"].strip()] for message in conversation]


def _message(name: str, item: Any) -> Message:
    if not isinstance(item, Mapping):
        raise BadRow(NOT_A_MESSAGE.format(name))
    sharegpt = item.get("role") is None and item.get("from") is not None
    role, content = ("from", "value") if sharegpt else ("role", "content")
    speaker = text(name, field(item, role))
    spoken = _content(name, field(item, content))
    if speaker not in ROLES:
        raise BadRow(UNKNOWN_ROLE)
    return {"role": ROLES[speaker], "content": spoken}


def _content(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "".join(_part(name, part) for part in value)
    return text(name, value)


def _part(name: str, part: Any) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        raise BadRow(NOT_TEXT_PART)
    return text(name, field(part, "text"))
