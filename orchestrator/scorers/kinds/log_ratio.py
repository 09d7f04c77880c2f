"""The kind ``log_ratio``: implicit PRMs and density ratios of two language models."""

from typing import TYPE_CHECKING

from orchestrator.choices import Position
from orchestrator.scorers.formats import BLANK_LINE
from orchestrator.scorers.kind import LoadOptions, ScorerKind, register

if TYPE_CHECKING:
    from orchestrator.conversations.chat import Chat
    from orchestrator.scorers.detect import CheckpointInfo
    from orchestrator.scorers.scorer import Scorer
    from orchestrator.scorers.spec import ScorerSpec


@register
class LogRatioKind(ScorerKind):
    """``beta`` times the log ratio of a language model to a base model, summed over a prefix."""

    name = "log_ratio"
    summary = "the log ratio of two language models"
    order = 40
    head_types = ("language model",)
    uses = frozenset(["base", "beta"])
    needs_base = True
    aggregates_steps = True
    position_matters = False

    @classmethod
    def is_implied(cls, spec: "ScorerSpec") -> bool:
        """Return whether the spec has a base model, which only a log ratio has."""
        return bool(spec.base)

    @classmethod
    def check_spec(cls, spec: "ScorerSpec", info: "CheckpointInfo") -> None:
        """Check that the base is a language model."""
        from orchestrator.scorers.detect import inspect_checkpoint

        base = inspect_checkpoint(str(spec.base))
        if base.head_type not in cls.head_types:
            raise ValueError(
                f"{spec.base}: cannot be the base of a log ratio: it is {base.description}"
            )

    def check(self, spec: "ScorerSpec") -> None:
        """Check both models as language models of the same vocabulary."""
        from orchestrator.scorers.checkpoint_checks import check_policy
        from orchestrator.scorers.log_ratio import check_vocabularies

        check_policy(spec.checkpoint)
        check_policy(str(spec.base))
        check_vocabularies(spec.checkpoint, str(spec.base))

    def scored_token(self, spec: "ScorerSpec", chat: "Chat", position: Position) -> str:
        """Every token counts, and the end token of a finished response."""
        from orchestrator.scorers.scored_token import shown_token

        end = shown_token(chat, chat.end_id)
        return f"every token of the prefix, and of a finished response {end}"

    def parameters(self, spec: "ScorerSpec") -> float:
        """Return the mean parameter count of the two models.

        Each reward token is counted once per model, so the mean gives the right total. The base is
        counted even if it is the policy.
        """
        from orchestrator.checkpoints.parameters import matrix_parameters

        both = (spec.checkpoint, str(spec.base))
        return sum(matrix_parameters(name, language_head=True) for name in both) / 2

    def load(self, spec: "ScorerSpec", load_options: LoadOptions) -> "Scorer":
        """Load both models."""
        from orchestrator.scorers.log_ratio import LogRatioScorer

        return LogRatioScorer(
            spec.checkpoint,
            str(spec.base),
            spec.beta,
            load_options.position,
            load_options.policy_chat,
            load_options.device,
            aggregation=spec.aggregation,
            step_delimiter=spec.step_delimiter or BLANK_LINE,
            fold_system=spec.fold_system,
        )
