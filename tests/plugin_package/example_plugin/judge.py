"""Brevity: of two responses the one with fewer words is better."""

from collections.abc import Sequence
from typing import Literal

from orchestrator.fields.types import NonNegativeInt
from orchestrator.judges.judge import Judge, Judged, Verdict, register
from orchestrator.tasks.task import Task


@register
class Brevity(Judge):
    """Prefers short responses; a control for what a length bias alone would do."""

    name: Literal["brevity"] = "brevity"
    """Prefers short responses."""
    unfinished_words: NonNegativeInt = 100
    """Words that an unfinished response counts as more than it has."""

    def verdicts(self, task: Task, texts: Sequence[Judged]) -> list[Verdict]:
        """Return minus the number of words of each text."""
        return [
            Verdict(-len(text.response.split()) - (0.0 if text.finished else self.unfinished_words))
            for text in texts
        ]
