"""Describes at which token a scorer reads its score, and with which tokens a policy ends."""

from orchestrator.choices import Position
from orchestrator.conversations.chat import Chat
from orchestrator.scorers.detect import scorer_kind
from orchestrator.scorers.spec import ScorerSpec


def scored_token(spec: ScorerSpec, position: Position) -> str:
    """Describe the token (text and id) at which a prefix is scored.

    If a finished response is scored elsewhere, that token is named too.

    Raises:
        ValueError: as of ``scorer_kind`` and of ``chat_of``.
    """
    kind = scorer_kind(spec)
    return kind.scored_token(spec, kind.chat(spec), position)


def end_tokens(chat: Chat) -> str:
    """Return the tokens (text and id) with which a policy ends a response."""
    return ", ".join(shown_token(chat, token_id) for token_id in chat.end_ids)


def shown_token(chat: Chat, token_id: int) -> str:
    """Return a token's text and id."""
    return f"{chat.tokenizer.decode([token_id])!r} ({token_id})"
