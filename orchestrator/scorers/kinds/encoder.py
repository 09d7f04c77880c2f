"""The kind ``encoder``: bidirectional reward models, which read prompt and prefix as two texts."""

from typing import TYPE_CHECKING

from orchestrator.scorers.kind import LoadOptions, ScorerKind, register

if TYPE_CHECKING:
    from orchestrator.scorers.scorer import Scorer
    from orchestrator.scorers.spec import ScorerSpec


@register
class EncoderKind(ScorerKind):
    """A sequence classifier on a bidirectional encoder."""

    name = "encoder"
    summary = "a bidirectional reward model, one forward per prefix"
    order = 20
    head_types = ("encoder",)
    recognized_head_types = ("encoder",)
    uses = frozenset(["score_label"])

    def check_weights(self, spec: "ScorerSpec") -> None:
        """Check the weights of the classifier."""
        from transformers import AutoModelForSequenceClassification

        from orchestrator.checkpoints.loading import check_weights
        from orchestrator.scorers.detect import inspect_checkpoint

        labels = inspect_checkpoint(spec.checkpoint).labels
        check_weights(AutoModelForSequenceClassification, spec.checkpoint, num_labels=labels)

    def load(self, spec: "ScorerSpec", load_options: LoadOptions) -> "Scorer":
        """Load the classifier."""
        from orchestrator.scorers.encoder import EncoderScorer

        return EncoderScorer(
            spec.checkpoint,
            load_options.position,
            load_options.policy_chat,
            load_options.device,
            spec.score_label,
            finished_position=spec.finished_position,
            fold_system=spec.fold_system,
        )
