"""The win-tie rates by the judges that a config lists in addition to the task's own grade."""

from orchestrator.evaluation.metric import Metric, register
from orchestrator.judges.judge import JUDGES
from orchestrator.judges.task_grade import TaskGrade


def win_tie_by(judge: str) -> str:
    """Return the name of a judge's win-tie metric."""
    return f"win_tie_{judge}"


def _register_win_tie(judge: str) -> None:
    attributes = {
        "__doc__": f"Whether the judge {judge} finds the response no worse than the base policy's.",
        "name": win_tie_by(judge),
        "label": f"win-tie ({judge})",
        "order": 45,
        "kind": "rate",
        "compared": True,
    }
    register(type(f"WinTie_{judge}", (Metric,), attributes))


for _name in JUDGES:
    if _name != TaskGrade.judge_name():  # its metric is ``win_tie``
        _register_win_tie(_name)
