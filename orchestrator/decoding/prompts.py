"""Conversion of prompts (text or messages) to search problems; invalid ones raise BadRow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from orchestrator.checkpoints.checkpoint import context_of
from orchestrator.conversations.chat import load_chat
from orchestrator.conversations.rendering import TemplateRefuses
from orchestrator.data.rejects import BadRow, prompt_too_long, text
from orchestrator.data.row_forms import PROMPT_FIELDS, prompt_of
from orchestrator.data.rows import Row
from orchestrator.records import Message
from orchestrator.scorers.loading import chat_of
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import Ids
from orchestrator.search.problem import Problem

FIELDS = PROMPT_FIELDS | {"prompt_id"}


@dataclass(frozen=True)
class PromptReader:
    """Converts prompts to token ids for a policy and an optional scorer.

    Attributes:
        policy: checkpoint folder or hub name.
        scorer: prompts must also fit in its context; None if there is no scorer.
        seed: seed of all draws.
        max_new_tokens: length limit of a response; must fit in both contexts after a prompt.
        fold_system: whether a system message that the policy's template does not render is folded
            into the first user message.
        stem: prefix of the ids of prompts without an id: row 5 of "file.jsonl" is "file-5".
    """

    policy: str
    scorer: ScorerSpec | None
    seed: int
    max_new_tokens: int
    stem: str = "prompt"
    fold_system: bool = True

    def check(self, number: int, row: Row) -> tuple[str, Sequence[Message]]:
        """Return the id and the messages of a row, without a tokenizer.

        Raises:
            BadRow: the prompt is missing, empty or neither text nor messages, or its id is neither
                text nor an integer.
        """
        name = row.get("prompt_id")
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        name = f"{self.stem}-{number}" if name is None else text("prompt_id", name)
        return name, prompt_of(row)

    def read(self, number: int, row: Row) -> Problem:
        """Return the problem of a row.

        Raises:
            BadRow: as ``check``; or a chat template rejects the conversation, or prompt and
                response do not fit in the context of a model.
        """
        name, messages = self.check(number, row)
        prompt_ids = load_chat(self.policy, self.fold_system).prompt_ids
        ids = self._fitting_ids("the policy", self.policy, prompt_ids, messages)
        reward_ids = None
        if self.scorer is not None:
            chat, checkpoint = _scorer_chat(self.scorer), self.scorer.checkpoint
            scorer_ids = self._fitting_ids(
                "the reward model", checkpoint, chat.reward_prompt_ids, messages,
                len(chat.closing_ids),
            )  # fmt: skip
            reward_ids = None if scorer_ids == ids else scorer_ids
        return Problem(name, ids, self.seed, self.max_new_tokens, reward_ids)

    def _fitting_ids(
        self,
        model: str,
        checkpoint: str,
        prompt_ids: Callable[[Sequence[Message]], Ids],
        messages: Sequence[Message],
        closing: int = 0,
    ) -> Ids:
        """Return the prompt's ids for a model, if its context also holds response and closing."""
        try:
            ids = prompt_ids(messages)
        except TemplateRefuses as error:
            raise BadRow(f"{model}: {error}") from None
        context, response = _context(checkpoint), self.max_new_tokens
        if reason := prompt_too_long(len(ids), model, context, response, closing):
            raise BadRow(reason)
        return ids


_context = lru_cache(maxsize=8)(context_of)
_scorer_chat = lru_cache(maxsize=4)(chat_of)
