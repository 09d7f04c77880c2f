"""The task's own grade as a judge: a rubric, or whether the final answer is right."""

from collections.abc import Sequence
from typing import Literal

from orchestrator.judges.judge import Judge, Judged, Verdict, register
from orchestrator.tasks.task import Task


@register
class TaskGrade(Judge):
    """Judges by the task's grade ``judged_by``; a sweep always uses it if the task has one."""

    name: Literal["task_grade"] = "task_grade"
    """The task's own grade."""

    def refusal(self, task: Task) -> str | None:
        """Return why the task has no such grade."""
        return None if task.judged_by else f"task {task.task_name()!r} does not grade responses"

    def judges_prefixes(self, task: Task) -> bool:
        """Return whether the task grades prefixes."""
        return task.grades_prefixes

    def verdicts(self, task: Task, texts: Sequence[Judged]) -> list[Verdict]:
        """Return the grade of each text as its value, and the faults that the task counts."""
        assert task.judged_by is not None
        verdicts = []
        for text in texts:
            grades = task.grade(text.prompt, text.response, text.finished)
            faults = int(sum(grades[name] for name in task.faults)) if task.faults else None
            verdicts.append(Verdict(grades[task.judged_by], faults))
        return verdicts
