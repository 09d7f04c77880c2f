"""A command that takes a config: its help lists the components that a config can name."""

from collections.abc import Iterable
from typing import Any

from jobs.command_line.job_command import JobCommand


class ConfigCommand(JobCommand):
    """A command whose help ends with the registered components, those of other packages too."""

    resumes = True

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; only the help imports the registries."""
        lines = [f"{kind}: {', '.join(names)}" for kind, names in _components()]
        self.epilog = "\n\n".join(lines)
        super().format_help(ctx, formatter)


def _components() -> Iterable[tuple[str, Iterable[str]]]:
    """Return each kind of component with the field that names it, and the names."""
    from orchestrator.evaluation.metric import metrics_in_order
    from orchestrator.judges.judge import JUDGES
    from orchestrator.judges.task_grade import TaskGrade
    from orchestrator.objectives.objective import variant_objectives
    from orchestrator.scorers.kind import kinds_in_order
    from orchestrator.search.method import methods_in_order
    from orchestrator.tasks.task import TASKS

    return [
        ("Tasks (data.task)", TASKS),
        ("Objectives (variants.NAME.objective)", variant_objectives()),
        ("Scorer kinds (variants.NAME.kind)", kinds_in_order()),
        ("Search methods (search.NAME)", methods_in_order()),
        ("Metrics", metrics_in_order()),
        ("Judges (evaluation.judges)", [n for n, kind in JUDGES.items() if kind is not TaskGrade]),
    ]
