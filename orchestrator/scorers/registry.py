"""From what a config says of a scorer to the scorer."""

from orchestrator.engines.chat import Chat
from orchestrator.scorers.detect import kind_of
from orchestrator.scorers.encoder import EncoderScorer
from orchestrator.scorers.scorer import Position, Scorer, ScorerSpec
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.scorers.step_tag import StepTagScorer


def load_scorer(
    spec: ScorerSpec,
    position: Position = "closed",
    policy_chat: Chat | None = None,
    device: str = "cpu",
) -> Scorer:
    """Loads a scorer's models; the other arguments are those of ``Scorer``.

    Raises:
        ValueError: the checkpoint is no reward model of the kind that is said, or of any.
    """
    kind = kind_of(spec)
    if kind == "encoder":
        return EncoderScorer(spec.checkpoint, position, policy_chat, device)
    if kind == "step_tag":
        return StepTagScorer(
            spec.checkpoint,
            position,
            policy_chat,
            device,
            aggregation=spec.aggregation or "last",
            step_delimiter=spec.step_delimiter,
            step_tag=spec.step_tag,
        )
    return SequenceScorer(spec.checkpoint, position, policy_chat, device)
