"""Parameter count N of a scorer, for the estimate of 2N FLOPs per token."""

from orchestrator.scorers.detect import scorer_kind
from orchestrator.scorers.spec import ScorerSpec


def scorer_parameters(spec: ScorerSpec) -> float:
    """Return N, so that a scorer computes 2N FLOPs for each counted token; loads no weights.

    N includes the reward head. It includes the language-model head only if rewards are read from
    its logits.

    Raises:
        ValueError: the checkpoint is not of the spec's kind.
    """
    return scorer_kind(spec).parameters(spec)
