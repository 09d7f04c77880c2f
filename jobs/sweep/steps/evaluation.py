"""The stage ``evaluation``: compute intervals and paired tests of cells and prefix scores.

The step writes evaluation.json, the statistical part of the summary: cells, comparisons, equal
budgets, agreement, premise. It also writes the rejects among the test prompts.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from jobs.sweep.backends import Engines
from jobs.sweep.steps.agreement import TestPairs
from orchestrator.choices import Position
from orchestrator.data.rejects import write_rejects
from orchestrator.evaluation.cells import Cell, distinct_rows
from orchestrator.evaluation.equal_budget import SizedCell, curve_of_table
from orchestrator.evaluation.judged_cells import with_win_ties
from orchestrator.evaluation.prefix_grid import Grid, PrefixJudge, grid_of
from orchestrator.evaluation.prefix_rates import POSITIONS, ScorerRates, measure_scorer
from orchestrator.evaluation.results import (
    CellResults,
    PrefixResults,
    cell_results,
    prefix_results,
)
from orchestrator.evaluation.statistics import Resampling
from orchestrator.judges.judge import Judge
from orchestrator.records import Prompt
from orchestrator.scorers.loading import chat_of
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.methods.policy_alone import BASELINE
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.tasks.task import Task


@dataclass(frozen=True)
class CellFiles:
    """Outputs of a cell's stage.

    Attributes:
        method: label of the method.
        scorer: name of the scorer, None without one.
        folder: folder of the stage.
        parameters: settings of the method, JSON-able.
        has_curve: whether the method is best-of-N, with a curve over n.
    """

    method: str
    scorer: str | None
    folder: Path
    parameters: dict[str, object]
    has_curve: bool


@dataclass(frozen=True)
class ScoredPairs:
    """The prefix scores of a scorer; ``file`` is scores.npz of its agreement stage."""

    scorer: ScorerSpec
    file: Path


@dataclass(frozen=True)
class EvaluationInputs:
    """Inputs of the step.

    Attributes:
        cells: cells of all methods and scorers.
        scored: prefix scores by scorer.
        pairs: the held-out pairs that were scored.
        grid: the G prefix lengths.
        orm: rates the responses of every cell (appendix C.2).
        engines: scorers in actors.
        task: task of the run.
        judges: judges of responses and prefixes, in addition to the task's grade.
        position: where a prefix is scored in search and training.
        resampling: seed and number of the statistical draws.
    """

    cells: Sequence[CellFiles]
    scored: dict[str, ScoredPairs]
    pairs: TestPairs
    grid: Sequence[int]
    orm: ScorerSpec
    engines: Engines
    task: Task
    judges: Sequence[Judge]
    position: Position
    resampling: Resampling


def run(inputs: EvaluationInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Read all cells and prefix scores, compare them, and write evaluation.json."""
    _, rejects = inputs.pairs.prompts.split()
    write_rejects(folder / "rejects.parquet", rejects)
    cells = _cell_results(inputs)
    progress.advance(len(inputs.cells))
    prefixes = _prefix_results(inputs, progress)
    results = asdict(cells) | asdict(prefixes)
    (folder / "evaluation.json").write_text(json.dumps(results, indent=1, allow_nan=False))
    decided = {"holds": 1.0, "does not hold": 0.0}.get(prefixes.premise.verdict)
    return {"metrics": {} if decided is None else {"premise_holds": decided}}


def _cell_results(inputs: EvaluationInputs) -> CellResults:
    """Return intervals and tests of the cells, with the ORM's reward and the win-tie outcomes."""
    task = inputs.task
    grades = (*task.counted, *([task.judged_by] if task.judged_by else []))
    cells = [_read_cell(files, grades) for files in inputs.cells]
    curves = {  # if a scorer has several curves, the last one counts
        files.scorer: _read_curve(files, grades) for files in inputs.cells if files.has_curve
    }
    every = _complete(inputs, [*cells, *(p.cell for curve in curves.values() for p in curve)])
    points = iter(every[len(cells) :])
    return cell_results(
        every[: len(cells)],
        {
            scorer: [replace(point, cell=next(points)) for point in curve]
            for scorer, curve in curves.items()
        },
        [files.method for files in inputs.cells if files.has_curve],
        task.task_name(),
        task.counted,
        inputs.resampling,
    )


def _complete(inputs: EvaluationInputs, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with the ORM's reward and the win-tie outcomes of each judge."""
    prompts = {prompt.prompt_id: prompt for prompt in inputs.pairs.prompts.fitting()}
    rows = distinct_rows(cells)
    rewards = dict(zip(rows, _orm_rewards(inputs, prompts, rows), strict=True))
    base = next(cell for cell in cells if cell.method == BASELINE)
    rated = [cell.with_rewards(rewards) for cell in cells]
    return with_win_ties(rated, base, inputs.task, inputs.judges, prompts)


def _orm_rewards(
    inputs: EvaluationInputs, prompts: dict[str, Prompt], rows: Sequence[tuple[str, str]]
) -> list[float]:
    """Return the ORM's reward of each response: one model rates all cells (appendix C.2)."""
    responses = [(prompts[name], text) for name, text in rows]
    return inputs.engines.whole_rewards(inputs.orm, responses)


def _prefix_results(inputs: EvaluationInputs, progress: ProgressBar) -> PrefixResults:
    """Return rates and tests of the prefix scores of all scorers."""
    pairs, lengths = inputs.pairs.read(), list(inputs.grid)
    judge = PrefixJudge.of(inputs.task, inputs.judges)
    policy_grid = grid_of(pairs, inputs.pairs.chat, lengths, judge)
    grids: list[Grid] = [policy_grid]
    rates: dict[str, ScorerRates] = {}
    for name, scored in inputs.scored.items():
        grid = grid_of(pairs, chat_of(scored.scorer), lengths, judge, grids)
        grids.append(grid)
        with np.load(scored.file) as arrays:
            scores = {
                position: (arrays[f"{position}_chosen"], arrays[f"{position}_rejected"])
                for position in POSITIONS
            }
        rates[name] = measure_scorer(grid, scores, inputs.resampling)
        progress.advance()
    return prefix_results(policy_grid, rates, inputs.position, inputs.resampling)


def _read_cell(files: CellFiles, grades: Sequence[str]) -> Cell:
    table = pq.read_table(files.folder / "responses.parquet")
    return Cell.of_table(files.method, files.scorer, table, files.parameters, grades)


def _read_curve(files: CellFiles, grades: Sequence[str]) -> list[SizedCell]:
    table = pq.read_table(files.folder / "curve.parquet")
    return curve_of_table(files.method, files.scorer, table, grades)
