"""The kind ``step_tag``: process reward models, read after each step."""

from typing import TYPE_CHECKING

from orchestrator.choices import Position
from orchestrator.scorers.kind import LoadOptions, ScorerKind, StepLayout, register

if TYPE_CHECKING:
    from orchestrator.conversations.chat import Chat
    from orchestrator.scorers.detect import CheckpointInfo
    from orchestrator.scorers.scorer import Scorer
    from orchestrator.scorers.spec import ScorerSpec


@register
class StepTagKind(ScorerKind):
    """A process reward model that scores each step at a tag or in a separate turn."""

    name = "step_tag"
    summary = "a process reward model, read after each step"
    order = 30
    head_types = ("value head", "step values", "process head", "token classes", "language model")
    recognized_head_types = ("step values", "process head", "token classes")
    uses = frozenset(["step_delimiter", "step_tag", "step_format"])
    aggregates_steps = True
    position_matters = False
    branch_positions = ("closed", "open")

    @classmethod
    def fits(cls, spec: "ScorerSpec", info: "CheckpointInfo") -> bool:
        """Return whether this kind can score the checkpoint.

        It can also score a classifier if the spec has a step format.
        """
        return super().fits(spec, info) or cls._is_step_classifier(spec, info)

    @classmethod
    def recognizes(cls, spec: "ScorerSpec", info: "CheckpointInfo") -> bool:
        """Return whether the checkpoint is of this kind if the config names none.

        A classifier also is if the spec has a step format.
        """
        return super().recognizes(spec, info) or cls._is_step_classifier(spec, info)

    @staticmethod
    def _is_step_classifier(spec: "ScorerSpec", info: "CheckpointInfo") -> bool:
        return spec.step_format is not None and info.head_type == "classifier"

    def check(self, spec: "ScorerSpec") -> None:
        """Check also the tokens with which a language model judges a step."""
        from orchestrator.scorers.step_formats import verdict_ids

        super().check(spec)
        if self.reads_logits(spec):
            verdict_ids(spec, self.chat(spec))

    def check_weights(self, spec: "ScorerSpec") -> None:
        """Check the weights of a language model, or of a backbone and its head."""
        from transformers import AutoModel

        from orchestrator.checkpoints.loading import check_weights
        from orchestrator.scorers.step_formats import step_format
        from orchestrator.scorers.step_heads import check_step_layers

        format_read = step_format(spec)
        if format_read.right is not None:
            super().check_weights(spec)
        else:
            check_weights(AutoModel, spec.checkpoint)
            check_step_layers(spec.checkpoint, format_read)

    def needs_template(self, spec: "ScorerSpec") -> bool:
        """Return whether the generic template check applies.

        For a language model, ``step_chat`` checks the template where the layout needs one.
        """
        from orchestrator.scorers.detect import inspect_checkpoint

        return inspect_checkpoint(spec.checkpoint).head_type != "language model"

    def chat(self, spec: "ScorerSpec") -> "Chat":
        """Return the tokenizer and the prompt format that the step format states."""
        from orchestrator.scorers.step_formats import step_chat

        return step_chat(spec)

    def step_layout(self, spec: "ScorerSpec", chat: "Chat") -> StepLayout:
        """Return the delimiter of the step format, and its tag."""
        from orchestrator.scorers.step_formats import tag_format

        tags = tag_format(spec, chat)
        return StepLayout(tags.delimiter, tags.tag_ids + tags.between_ids)

    def scored_token(self, spec: "ScorerSpec", chat: "Chat", position: Position) -> str:
        """Name the last token of the tag."""
        from orchestrator.scorers.scored_token import shown_token
        from orchestrator.scorers.step_formats import tag_format

        return f"{shown_token(chat, tag_format(spec, chat).tag_ids[-1])}, after each step"

    def reads_logits(self, spec: "ScorerSpec") -> bool:
        """Return whether rewards are read from a language model's logits."""
        from orchestrator.scorers.step_formats import step_format

        return step_format(spec).right is not None

    def load(self, spec: "ScorerSpec", load_options: LoadOptions) -> "Scorer":
        """Load the process reward model."""
        from orchestrator.scorers.step_tag import StepTagScorer

        return StepTagScorer(
            spec.checkpoint,
            load_options.position,
            load_options.policy_chat,
            load_options.device,
            aggregation=spec.aggregation or "last",
            step_delimiter=spec.step_delimiter,
            step_tag=spec.step_tag,
            branch_memory_mib=spec.branch_memory_mib,
            step_format=spec.step_format,
            fold_system=spec.fold_system,
        )
