"""The N of a scorer: the number of parameters that a counted reward token passes."""

from orchestrator.scorers.detect import scorer_kind
from orchestrator.scorers.spec import ScorerSpec


def scorer_parameters(spec: ScorerSpec) -> float:
    """Return N, so that a scorer computes 2N FLOPs for each counted token; loads no weights.

    A reward head counts as the matrix that it is. A language-model head counts if rewards are read
    from its logits.

    Raises:
        ValueError: the checkpoint is not of the spec's kind.
    """
    return scorer_kind(spec).parameters(spec)
