"""At which token a scorer reads its score, and at which ones a policy ends: in words, for a run."""

from orchestrator.choices import Position
from orchestrator.conversations.chat import Chat
from orchestrator.scorers.detect import kind_of
from orchestrator.scorers.registry import chat_of
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.scorers.step_formats import tag_format


def scored_token(spec: ScorerSpec, position: Position) -> str:
    """The token (text and id) at which a prefix is scored, and a finished response where elsewhere.

    Raises:
        ValueError: as of ``kind_of`` and of ``chat_of``.
    """
    kind, chat = kind_of(spec), chat_of(spec)
    if kind == "log_ratio":
        return f"every token of the prefix, and of a finished response {_named(chat, chat.end_id)}"
    if kind == "step_tag":
        return f"{_named(chat, tag_format(spec, chat).tag_ids[-1])}, behind each step"
    content = "the last token of the response"
    closed = _named(chat, chat.closing_ids[-1]) if chat.closing_ids else content
    if position == "closed" or spec.finished == "position":
        return closed if position == "closed" else content
    return f"{content}; of a finished one {closed}"


def end_tokens(chat: Chat) -> str:
    """The tokens (text and id) with which a policy ends a response."""
    return ", ".join(_named(chat, token_id) for token_id in chat.end_ids)


def _named(chat: Chat, token_id: int) -> str:
    return f"{chat.tokenizer.decode([token_id])!r} ({token_id})"
