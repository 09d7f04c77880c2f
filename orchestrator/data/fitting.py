"""Which prompts and responses fit the contexts of the models that read them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.control_tokens import Ids
from orchestrator.conversations.rendering import TemplateRefuses
from orchestrator.data.rejects import conversation_too_long, prompt_too_long
from orchestrator.records import Message

EQUAL_TOKENS = "chosen and rejected have the same tokens for {}"


@dataclass(frozen=True)
class Reader:
    """A model that reads prompts and responses.

    Attributes:
        name: in the run, for messages.
        chat: its tokenizer and template.
        context: its context length in tokens.
    """

    name: str
    chat: Chat
    context: int

    def refuses(
        self, messages: Sequence[Message], responses: Sequence[str], room: int
    ) -> str | None:
        """Return why the prompt with the longest response does not fit; None if it fits.

        Args:
            messages: the prompt.
            responses: responses to it; if there are none, the prompt must leave ``room``.
            room: tokens that are reserved for a response that does not exist yet.
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
        return prompt_too_long(tokens, self.name, self.context, room, closing)

    def _ids(self, messages: Sequence[Message], response: str) -> Ids:
        conversation = self.chat.conversation(messages, response)
        return conversation.prompt_ids + conversation.response_ids


def refused(
    readers: Sequence[Reader],
    messages: Sequence[Message],
    responses: Sequence[str],
    room: int = 0,
) -> str | None:
    """Return the first reader's reason to refuse a prompt with its responses, None if it fits."""
    return next(filter(None, (r.refuses(messages, responses, room) for r in readers)), None)


def check_some_fit(what: str, reasons: Iterable[str | None]) -> None:
    """Check that at least one of some rows fits; each has the reason to refuse it, or None.

    Stops at the first row that fits.

    Raises:
        ValueError: there are rows, and none fits.
    """
    last, count = None, 0
    for count, last in enumerate(reasons, 1):  # noqa: B007 - read behind the loop
        if last is None:
            return
    if last is not None:
        raise ValueError(
            f"none of the {count:,} {what} fits: {last}; increase"
            " models.architecture.max_position_embeddings, or use other models or shorter texts"
        )
