"""Compute all results of a sweep's evaluation: the statistical part of summary.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.choices import Position
from orchestrator.evaluation.cells import Cell
from orchestrator.evaluation.comparisons import (
    CellSummary,
    Comparison,
    compare_cells,
    summarize_cell,
)
from orchestrator.evaluation.equal_budget import (
    BudgetComparison,
    CurveSummary,
    SizedCell,
    curve_summaries,
    equal_budget,
)
from orchestrator.evaluation.metric import compared_metrics
from orchestrator.evaluation.prefix_comparisons import (
    AgreementComparison,
    Premise,
    compare_scorers,
    premise_of,
)
from orchestrator.evaluation.prefix_grid import Grid
from orchestrator.evaluation.prefix_rates import (
    MEASURES,
    AgreementRow,
    ScorerRates,
    judge_row,
    scorer_rows,
)
from orchestrator.evaluation.statistics import Interval, Resampling


@dataclass(frozen=True)
class CellResults:
    """Results of the cells: intervals, paired tests, curves of best-of-N, equal budgets."""

    cells: list[CellSummary]
    comparisons: list[Comparison]
    count_comparisons: list[Comparison]
    bon_curves: list[CurveSummary]
    equal_budget: list[BudgetComparison]


@dataclass(frozen=True)
class PrefixResults:
    """Results of the prefix scores (appendix B); ``pair_accuracy`` is that of whole responses."""

    agreement: list[AgreementRow]
    agreement_comparisons: list[AgreementComparison]
    premise: Premise
    pair_accuracy: dict[str, Interval]


def cell_results(
    cells: Sequence[Cell],
    curves: Mapping[str | None, Sequence[SizedCell]],
    with_curve: Sequence[str],
    task: str,
    counts: Sequence[str],
    resampling: Resampling,
) -> CellResults:
    """Summarize and compare cells.

    Args:
        cells: cells of all methods and scorers, with all metrics.
        curves: curves of best-of-N, by scorer, with all metrics.
        with_curve: labels of the methods that have a curve, which are not compared with it.
        task: name of the task.
        counts: names of the task's grades that are counts.
        resampling: settings of the resampling (seed, number of resamples).
    """
    others = [cell for cell in cells if cell.method not in with_curve]
    return CellResults(
        cells=[summarize_cell(cell, task, counts, resampling) for cell in cells],
        comparisons=compare_cells(cells, compared_metrics(), resampling),
        count_comparisons=compare_cells(cells, counts, resampling),
        bon_curves=curve_summaries(curves, resampling),
        equal_budget=equal_budget(others, curves, resampling),
    )


def prefix_results(
    policy_grid: Grid,
    scorers: Mapping[str, ScorerRates],
    position: Position,
    resampling: Resampling,
) -> PrefixResults:
    """Return the rates and tests of all scorers; ``position`` is that of search and training."""
    judge = judge_row(policy_grid, resampling)
    rows = [] if judge is None else [judge]
    for scorer, rates in scorers.items():
        rows += scorer_rows(scorer, rates, resampling)
    return PrefixResults(
        agreement=sorted(rows, key=lambda row: MEASURES.index(row.measure)),
        agreement_comparisons=compare_scorers(scorers, resampling),
        premise=premise_of(scorers.get("reference"), scorers.get("orm"), position, resampling),
        pair_accuracy={name: rates.pair_accuracy[position] for name, rates in scorers.items()},
    )
