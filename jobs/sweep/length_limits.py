"""The models whose context lengths limit prompts and pairs, and the test prompts that fit them.

Models that the run trains have the tokenizer, template and context of the policy. Each of the
user's checkpoints has its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.checkpoints.checkpoint import context_of
from orchestrator.conversations.chat import load_chat
from orchestrator.data.context_length import ContextLimit, first_rejection_reason
from orchestrator.data.rejects import make_reject
from orchestrator.data.tables import read_prompts
from orchestrator.records import Prompt, Reject
from orchestrator.scorers.loading import chat_of
from orchestrator.scorers.spec import ScorerSpec


@dataclass(frozen=True)
class LengthLimitingModels:
    """The policy and the user's reward models.

    Attributes:
        policy: folder or hub name.
        fold_system: whether a system message that the policy's template does not render is folded
            into the first user message.
        scorers: reward models that the user gave as checkpoints, by name.
    """

    policy: str
    fold_system: bool
    scorers: Mapping[str, ScorerSpec]

    def load(self) -> list[ContextLimit]:
        """Return the context limits of the models, the policy first."""
        chat = load_chat(self.policy, self.fold_system)
        return [
            ContextLimit("policy", chat, context_of(self.policy)),
            *(
                ContextLimit(name, chat_of(spec), context_of(spec.checkpoint))
                for name, spec in self.scorers.items()
            ),
        ]


@dataclass(frozen=True)
class TestPrompts:
    """The test prompts, without those too long for a model.

    Attributes:
        file: file with the prompts.
        length_limiting_models: the models that the prompts must fit.
        max_new_tokens: largest number of tokens of a response.
    """

    file: Path
    length_limiting_models: LengthLimitingModels
    max_new_tokens: int

    def split(self) -> tuple[list[Prompt], list[Reject]]:
        """Return the prompts that fit, and the others as rejects."""
        limits = self.length_limiting_models.load()
        kept, rejects = [], []
        for number, prompt in enumerate(read_prompts(self.file)):
            reason = first_rejection_reason(limits, prompt.messages, (), self.max_new_tokens)
            if reason:
                content = prompt.messages[-1]["content"]
                rejects.append(make_reject("prompts_test", number, reason, content))
            else:
                kept.append(prompt)
        return kept, rejects

    def fitting(self, max_prompts: int | None = None) -> list[Prompt]:
        """Return the first ``max_prompts`` prompts that fit; None: all."""
        return self.split()[0][:max_prompts]
