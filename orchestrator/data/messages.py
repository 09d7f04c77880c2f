"""Parsing of conversations to messages ``{"role": ..., "content": text}``.

Accepts text, message lists, ShareGPT (``from``, ``value``), content as a list of parts, other names
of the roles, and lists of turns as JSON text (LMSYS). Independent of data sets, tokenizers and
models.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TypeGuard

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
NOT_BY_THE_ASSISTANT = "{}: the last message is not the assistant's"
NOT_A_LIST = "wrong type: {} is not a list of messages"
NOT_A_MESSAGE = (
    "wrong type: an item of {} is not a message, valid is an object with role and content, or with"
    " from and value"
)
UNKNOWN_ROLE = f"unknown role, valid are {', '.join(ROLES)}"
NOT_TEXT_PART = 'content part that is not text, valid is {"type": "text", "text": ...} alone'
TURNS_ALONE = (
    "several user turns without one answer for each, valid is one turn, a list of messages, or as"
    " many answers as turns"
)

Conversation = tuple[Message, ...]
Turns = list[str | None]


def messages(name: str, value: object) -> Conversation:
    """Parse ``value`` to messages of ``role`` and ``content``; the last role is not checked.

    Args:
        name: name of the field, for the reason of a reject.
        value: a list of ``role`` and ``content``, or of ShareGPT's ``from`` and ``value``. Content
            is text or a list of text parts, which are concatenated as chat templates do.

    Raises:
        BadRow: with the reason.
    """
    if not isinstance(value, (list, tuple)):
        raise BadRow(NOT_A_LIST.format(name))
    return tuple(_message(name, item) for item in value)


def conversation(name: str, value: object) -> Conversation:
    """Parse ``value``, text or a list of messages, to a prompt that ends with the user.

    A JSON list of one text is that text.

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
    """Return ``prompt`` after a check that its last message is the user's and not empty.

    Raises:
        BadRow: it is not.
    """
    if not prompt:
        raise BadRow(EMPTY_PROMPT)
    if prompt[-1]["role"] != "user":
        raise BadRow(NOT_TO_THE_USER)
    if not prompt[-1]["content"].strip():
        raise BadRow(EMPTY_PROMPT)
    return prompt


def answered(name: str, value: object) -> tuple[Conversation, str]:
    """Parse a response and the messages before it, if any.

    Args:
        name: name of the field, for the reason of a reject.
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


def turns(value: object) -> Turns | None:
    """Parse a JSON list of texts and nulls; None if ``value`` is not one."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return None
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return parsed if are_turns(parsed) else None


def are_turns(value: object) -> TypeGuard[Turns]:
    """Return whether a value is a nonempty list of texts and nulls."""
    if not isinstance(value, list) or not value:
        return False
    return all(item is None or isinstance(item, str) for item in value)


def interleaved(name: str, user_turns: Turns, answers: Turns) -> tuple[Conversation, str]:
    """Interleave user turns and answers: the messages before the last answer, and that answer.

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


def same_conversation(first: Sequence[Message], second: Sequence[Message]) -> bool:
    """Return whether two conversations are equal up to white space around contents."""
    return plain(first) == plain(second)


def plain(conversation: Sequence[Message]) -> list[list[str]]:
    """Return roles and contents, contents without outer white space."""
    return [[message["role"], message["content"].strip()] for message in conversation]


def _message(name: str, item: object) -> Message:
    if not isinstance(item, Mapping):
        raise BadRow(NOT_A_MESSAGE.format(name))
    sharegpt = item.get("role") is None and item.get("from") is not None
    role, content = ("from", "value") if sharegpt else ("role", "content")
    role_name = text(name, field(item, role))
    content_text = _content(name, field(item, content))
    if role_name not in ROLES:
        raise BadRow(UNKNOWN_ROLE)
    return {"role": ROLES[role_name], "content": content_text}


def _content(name: str, value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "".join(_part(name, part) for part in value)
    return text(name, value)


def _part(name: str, part: object) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        raise BadRow(NOT_TEXT_PART)
    return text(name, field(part, "text"))
