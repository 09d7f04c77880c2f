"""The N of a scorer: how many parameters a counted reward token goes through."""

from orchestrator.checkpoints.parameters import matrix_parameters
from orchestrator.scorers.detect import kind_of
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.scorers.step_heads import reads_logits


def scorer_parameters(spec: ScorerSpec) -> float:
    """N by which 2N FLOPs a reward token are what the scorer computes; no weight is loaded.

    A reward head counts as the matrix that it is. A language-model head counts where rewards are
    read from its logits: of log ratios and of language models with step tags. A log ratio counts
    each token once for each of its two models, so that its N is their mean: the base is computed
    as the numerator is, even where it is the policy.

    Raises:
        ValueError: the checkpoint is no reward model of its kind.
    """
    kind = kind_of(spec)
    if kind == "log_ratio":
        both = (spec.checkpoint, str(spec.base))
        return sum(matrix_parameters(name, language_head=True) for name in both) / 2
    logits = spec.score_token is not None or (kind == "step_tag" and reads_logits(spec))
    return float(matrix_parameters(spec.checkpoint, language_head=logits))
