"""Summarize cells with intervals, and test each cell against its baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.evaluation.cells import Cell
from orchestrator.evaluation.metric import metrics_in_order
from orchestrator.evaluation.statistics import Interval, PairedTest, Resampling
from orchestrator.search.methods.policy_alone import BASELINE

# Scorers that the others are compared with: the ORM, and the ORM trained further as a control.
BASELINE_SCORERS = ("orm", "orm_continued")


@dataclass(frozen=True)
class CellSummary:
    """One cell of summary.json.

    Attributes:
        task: name of the task.
        method: label of the method.
        scorer: name of the scorer, None without one.
        seed: seed of the run.
        prompts: number of prompts of the cell.
        parameters: the method's settings.
        metrics: mean and interval of each metric, None if not measured; ``reward_std`` is the
            standard deviation of the scorer's rewards.
        counts: mean and interval of each of the task's grades that are counts.
        cost: mean of each cost per prompt.
    """

    task: str
    method: str
    scorer: str | None
    seed: int
    prompts: int
    parameters: Mapping[str, object]
    metrics: dict[str, Interval | float | None]
    counts: dict[str, Interval | None]
    cost: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """The paired test of a cell's metric against the same method with a baseline scorer, or base.

    ``baseline`` is the name of the scorer, or of the method without search.
    """

    method: str
    scorer: str | None
    baseline: str
    metric: str
    test: PairedTest


def summarize_cell(
    cell: Cell, task: str, counts: Sequence[str], resampling: Resampling
) -> CellSummary:
    """Return a cell's metrics, counts and costs.

    ``counts`` are the names of the task's grades that are counts.
    """
    metrics: dict[str, Interval | float | None] = {
        name: cell.interval(name, resampling) for name in metrics_in_order()
    }
    rewards = cell.values.get("reward")
    metrics["reward_std"] = None if rewards is None else float(rewards.std())
    return CellSummary(
        task=task,
        method=cell.method,
        scorer=cell.scorer,
        seed=resampling.seed,
        prompts=len(cell.prompt_ids),
        parameters=cell.parameters,
        metrics=metrics,
        counts={name: cell.interval(name, resampling) for name in counts},
        cost=cell.costs(),
    )


def compare_cells(
    cells: Sequence[Cell], metrics: Sequence[str], resampling: Resampling
) -> list[Comparison]:
    """Compare each cell with the baseline scorers and with the base policy, prompt by prompt."""
    by_name = {(cell.method, cell.scorer): cell for cell in cells}
    comparisons = []
    for cell in cells:
        for name, other in _baselines(cell, by_name):
            comparisons += [
                Comparison(
                    cell.method, cell.scorer, name, metric, cell.against(other, metric, resampling)
                )
                for metric in metrics
                if metric in cell.values
                and metric in other.values
                # Win-tie compares with base already: base's rate is 1, and no rate exceeds it.
                and not (metric.startswith("win_tie") and name == BASELINE)
            ]
    return comparisons


def _baselines(
    cell: Cell, by_name: Mapping[tuple[str, str | None], Cell]
) -> list[tuple[str, Cell]]:
    """Return the cells that a cell is compared with, by the name of the baseline."""
    scorers = () if cell.scorer is None else BASELINE_SCORERS
    others = [(name, by_name.get((cell.method, name))) for name in scorers]
    others.append((BASELINE, by_name[BASELINE, None]))
    return [
        (name, other)
        for name, other in others
        if other is not None
        and other is not cell
        and not (name == "orm_continued" and cell.scorer == "orm")
    ]
