"""Metrics from the search itself, and metrics that the evaluation computes for whole cells."""

from orchestrator.evaluation.metric import Metric, register


@register
class WinTie(Metric):
    """Whether the response is no worse than the base policy's (section 5.1), by its grade."""

    name = "win_tie"
    label = "win-tie"
    order = 40
    kind = "rate"
    compared = True


@register
class OrmReward(Metric):
    """The ORM's reward of the whole response, the same model for all cells (appendix C.2)."""

    name = "orm_reward"
    label = "ORM reward"
    order = 50
    compared = True


@register
class OwnReward(Metric):
    """The reward of the response by the cell's own scorer, in that scorer's unit."""

    name = "reward"
    label = "own reward"
    order = 60
    comparable = False


@register
class Length(Metric):
    """Tokens of the response, without its end token."""

    name = "length"
    label = "length, tokens"
    order = 80
    comparable = False
    html_only = True


@register
class Finished(Metric):
    """Whether the policy ended the response before the length limit."""

    name = "finished"
    label = "finished"
    order = 90
    kind = "rate"
    html_only = True
