"""Which prompts and responses fit the contexts of the models that read them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.control_tokens import Ids
from orchestrator.conversations.rendering import TemplateRefuses
from orchestrator.data.rejects import conversation_too_long, is_too_long, prompt_too_long
from orchestrator.records import Message

EQUAL_TOKENS = "chosen and rejected have the same tokens for {}"


@dataclass(frozen=True)
class ContextLimit:
    """A model that reads prompts and responses, with its context length.

    Attributes:
        name: name used in messages.
        chat: its tokenizer and template.
        context: its context length in tokens.
    """

    name: str
    chat: Chat
    context: int

    def rejection_reason(
        self, messages: Sequence[Message], responses: Sequence[str], reserved_tokens: int
    ) -> str | None:
        """Return why this model cannot read the prompt and responses; None if it can.

        The template rejects them, all responses have the same tokens, or they exceed the context.

        Args:
            messages: the prompt.
            responses: responses to it; without any, the prompt must leave ``reserved_tokens``.
            reserved_tokens: tokens that are reserved for a response that does not exist yet.
        """
        try:
            conversations = [self._ids(messages, response) for response in responses]
            prompt = self.chat.reward_prompt_ids(messages)
        except TemplateRefuses as error:
            return f"{self.name}: {error}"
        if len(conversations) > 1 and len(set(conversations)) == 1:
            return EQUAL_TOKENS.format(self.name)
        tokens = max(map(len, [*conversations, prompt]))
        closing = len(self.chat.closing_ids)
        if responses:
            return conversation_too_long(tokens, self.name, self.context, closing)
        return prompt_too_long(tokens, self.name, self.context, reserved_tokens, closing)

    def _ids(self, messages: Sequence[Message], response: str) -> Ids:
        conversation = self.chat.conversation(messages, response)
        return conversation.prompt_ids + conversation.response_ids


def first_rejection_reason(
    limits: Sequence[ContextLimit],
    messages: Sequence[Message],
    responses: Sequence[str],
    reserved_tokens: int = 0,
) -> str | None:
    """Return the first model's reason to reject a prompt with its responses.

    Returns None if all models can read them.
    """
    reasons = (limit.rejection_reason(messages, responses, reserved_tokens) for limit in limits)
    return next(filter(None, reasons), None)


def check_any_usable(what: str, reasons: Iterable[str | None]) -> None:
    """Check that at least one of some rows is usable; stop at the first such row.

    Args:
        what: what the rows are, for the error.
        reasons: for each row the rejection reason, or None if it is usable.

    Raises:
        ValueError: there are rows, and none is usable.
    """
    last, count = None, 0
    for count, last in enumerate(reasons, 1):  # noqa: B007 - read after the loop
        if last is None:
            return
    if last is not None:
        advice = (
            "; increase models.architecture.max_position_embeddings, or use other models or"
            " shorter texts"
        )
        raise ValueError(
            f"none of the {count:,} {what} is usable; last reason: {last}"
            f"{advice if is_too_long(last) else ''}"
        )
