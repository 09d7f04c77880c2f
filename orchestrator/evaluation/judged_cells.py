"""Add win-tie rates against the base policy to cells, by the task's grade and by judges."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from orchestrator.evaluation.cells import Cell
from orchestrator.evaluation.metrics.judges import win_tie_by
from orchestrator.evaluation.resampling import Floats
from orchestrator.judges.judge import Judge, Judged, verdicts_of
from orchestrator.records import Prompt
from orchestrator.tasks.task import Task

TextKey = tuple[str, str, bool]  # prompt id, response, whether it is finished


def with_win_ties(
    cells: Sequence[Cell],
    base: Cell,
    task: Task,
    judges: Iterable[Judge],
    prompts: Mapping[str, Prompt],
) -> list[Cell]:
    """Return the cells with a win-tie metric of each judge against the base policy.

    Args:
        cells: whose values hold the task's grade ``judged_by``, if it has one.
        base: responses of the base policy.
        task: task of the run.
        judges: beside the task's grade.
        prompts: prompts by prompt id.
    """
    completed = list(cells)
    if task.judged_by is not None:
        grade = task.judged_by
        completed = [
            cell.with_win_tie("win_tie", cell.values[grade], base.values[grade])
            for cell in completed
        ]
    for judge in judges:
        texts = [_texts(cell, prompts) for cell in (base, *cells)]
        base_grades, *grades = _values(judge, task, texts)
        name = win_tie_by(judge.judge_name())
        completed = [
            cell.with_win_tie(name, values, base_grades)
            for cell, values in zip(completed, grades, strict=True)
        ]
    return completed


def _texts(cell: Cell, prompts: Mapping[str, Prompt]) -> list[Judged]:
    return [
        Judged(prompts[prompt_id], response, bool(finished))
        for (prompt_id, response), finished in zip(cell.rows, cell.values["finished"], strict=True)
    ]


def _values(judge: Judge, task: Task, texts: Sequence[Sequence[Judged]]) -> list[Floats]:
    """Return the values of the responses of each cell (N,); each text is judged once."""
    different = list({_key(text): text for cell_texts in texts for text in cell_texts}.values())
    verdicts = verdicts_of(judge, task, different)
    values = {_key(text): verdict.value for text, verdict in zip(different, verdicts, strict=True)}
    return [np.array([values[_key(text)] for text in cell_texts]) for cell_texts in texts]


def _key(text: Judged) -> TextKey:
    return text.prompt.prompt_id, text.response, text.finished
