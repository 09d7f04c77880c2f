"""From what a config says of a scorer to the scorer."""

from orchestrator.engines.chat import Chat
from orchestrator.scorers.scorer import Position, Scorer, ScorerSpec
from orchestrator.scorers.sequence import SequenceScorer


def load_scorer(
    spec: ScorerSpec,
    position: Position = "closed",
    policy_chat: Chat | None = None,
    device: str = "cpu",
) -> Scorer:
    """Loads a scorer's models; the arguments are those of ``Scorer``."""
    return SequenceScorer(spec.checkpoint, position, policy_chat, device)
