"""Politeness as a count: how often a response says "please"."""

from orchestrator.evaluation.metric import Metric, register
from orchestrator.records import Prompt, Response


@register
class Pleases(Metric):
    """Occurrences of the word "please"."""

    name = "pleases"
    label = "pleases"
    order = 75
    compared = True

    @classmethod
    def measure(cls, prompt: Prompt, text: str, response: Response) -> float:
        """Return the number of words that are "please"."""
        return float(text.lower().split().count("please"))
