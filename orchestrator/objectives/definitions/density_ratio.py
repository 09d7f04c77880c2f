"""A density ratio: two existing language models score by the log ratio of their probabilities."""

from orchestrator.objectives.log_ratios import LogRatioObjective
from orchestrator.objectives.objective import register


@register
class DensityRatio(LogRatioObjective):
    """No training: the score of a prefix is beta * (log pi_theta(y | x) - log pi_ref(y | x))."""

    name = "density_ratio"
    label = "density ratio"
