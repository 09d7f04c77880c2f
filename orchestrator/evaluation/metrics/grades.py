"""Grades that tasks give a response (``Task.grade``); a task has some of these."""

from orchestrator.evaluation.metric import Metric, register


@register
class Resolved(Metric):
    """Whether the response resolves the customer's problem: the help desk."""

    name = "resolved"
    label = "resolved"
    order = 10
    kind = "rate"
    compared = True
    measures_correctness = True


@register
class Accuracy(Metric):
    """Whether the final answer is right: GSM8K, MATH."""

    name = "accuracy"
    label = "accuracy"
    order = 20
    kind = "rate"
    compared = True
    measures_correctness = True


@register
class Rubric(Metric):
    """The points of the help desk's rubric."""

    name = "rubric"
    label = "rubric"
    order = 30
    compared = True
    measures_correctness = True
