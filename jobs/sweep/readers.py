"""The models that read a run's texts, and what is too long for one of them.

Models trained in the run read as the policy does; a given one has a tokenizer, a template and a
context of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.sweep.sweep import Sweep
from orchestrator.checkpoints.checkpoint import context_of
from orchestrator.conversations.chat import Chat
from orchestrator.conversations.control_tokens import Ids
from orchestrator.conversations.rendering import TemplateRefuses
from orchestrator.data.rejects import too_long
from orchestrator.records import Message
from orchestrator.scorers.registry import chat_of

EQUAL_TOKENS = "chosen and rejected have the same tokens for {}"


@dataclass(frozen=True)
class Reader:
    """A model by its name in the run; ``context`` is the most tokens that it reads."""

    name: str
    chat: Chat
    context: int

    def refuses(
        self, messages: Sequence[Message], responses: Sequence[str], room: int
    ) -> str | None:
        """Why prompt and longest response, with ``room`` tokens more, are too long; else None."""
        try:
            texts = [self._text(messages, response) for response in responses]
            prompt = self.chat.reward_prompt_ids(messages)
        except TemplateRefuses as error:
            return f"{self.name}: {error}"
        if len(texts) > 1 and len(set(texts)) == 1:
            return EQUAL_TOKENS.format(self.name)
        tokens = max(map(len, [*texts, prompt]))
        reason = too_long(tokens, self.context - room - len(self.chat.closing_ids))
        return reason and (reason if self.name == "policy" else f"{reason} of {self.name}")

    def _text(self, messages: Sequence[Message], response: str) -> Ids:
        text = self.chat.conversation(messages, response)
        return text.prompt_ids + text.response_ids


def readers(sweep: Sweep) -> list[Reader]:
    """The policy, and every given model."""
    policy = sweep.checkpoint("policy")
    given = [name for name, model in sweep.models.items() if name != "policy" and model.given]
    return [
        Reader("policy", sweep.chat("policy"), context_of(policy)),
        *(Reader(n, chat_of(sweep.scorer(n)), context_of(sweep.checkpoint(n))) for n in given),
    ]


def refused(
    found: Sequence[Reader], messages: Sequence[Message], responses: Sequence[str], room: int = 0
) -> str | None:
    """The first reader's reason to refuse a text, if one has any."""
    return next(filter(None, (r.refuses(messages, responses, room) for r in found)), None)


def check_some_fit(what: str, reasons: Iterable[str | None]) -> None:
    """Checks that some text is let through, of which each has the reason to refuse it or None.

    Reads no further than the first that fits.

    Raises:
        ValueError: there are texts, and none fits.
    """
    last, count = None, 0
    for count, last in enumerate(reasons, 1):  # noqa: B007 - read behind the loop
        if last is None:
            return
    if last is not None:
        raise ValueError(
            f"none of the {count:,} {what} fits: {last}; give a longer"
            " models.architecture.max_position_embeddings, other models, or shorter texts"
        )
