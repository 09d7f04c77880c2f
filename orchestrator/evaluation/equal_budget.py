"""Compare each method with best-of-N with the same scorer at equal cost, prompt by prompt.

Best-of-N needs no search, so it is the baseline of every search method. Its n is the largest n of
the curve whose mean cost over the same prompts does not exceed that of the method.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.evaluation.budget import largest_within
from orchestrator.evaluation.cells import Cell
from orchestrator.evaluation.metric import compared_metrics
from orchestrator.evaluation.statistics import Interval, PairedTest, Resampling

Budget = Literal["flops", "seconds"]
BUDGETS: tuple[Budget, ...] = ("flops", "seconds")


@dataclass(frozen=True, eq=False)
class SizedCell:
    """Best-of-N with ``n`` samples: one point of a curve."""

    n: int
    cell: Cell


Curves = Mapping[str | None, Sequence[SizedCell]]  # curve of each scorer, by ascending n


@dataclass(frozen=True)
class PointSummary:
    """One point of a curve in summary.json: metrics with intervals, and mean costs."""

    n: int
    metrics: dict[str, Interval | None]
    cost: dict[str, float]


@dataclass(frozen=True)
class CurveSummary:
    """A scorer's curve in summary.json."""

    scorer: str | None
    points: list[PointSummary]


@dataclass(frozen=True)
class BudgetComparison:
    """The comparison of a method with best-of-N at equal cost.

    Attributes:
        method: label of the method.
        scorer: name of its scorer.
        budget: name of the cost that is equal.
        n: samples of best-of-N.
        most: the largest n of the curve.
        share: mean cost of best-of-N divided by the method's.
        tests: paired differences, method minus best-of-N, by metric.
    """

    method: str
    scorer: str | None
    budget: Budget
    n: int
    most: int
    share: float
    tests: dict[str, PairedTest]


def curve_of_table(
    method: str, scorer: str | None, table: pa.Table, grades: Sequence[str] = ()
) -> list[SizedCell]:
    """Return the curve of a table of responses with a column ``n``, by ascending n."""
    return [
        SizedCell(
            n,
            Cell.of_table(method, scorer, table.filter(pc.equal(table["n"], n)), {"n": n}, grades),
        )
        for n in sorted(set(table["n"].to_pylist()))
    ]


def equal_budget(
    cells: Sequence[Cell], curves: Curves, resampling: Resampling
) -> list[BudgetComparison]:
    """Compare each cell whose scorer has a curve with best-of-N, for each kind of cost.

    ``cells`` are those of methods other than best-of-N.
    """
    return [
        comparison
        for cell in cells
        if cell.scorer in curves
        for comparison in _comparisons(cell, curves[cell.scorer], resampling)
    ]


def curve_summaries(curves: Curves, resampling: Resampling) -> list[CurveSummary]:
    """Return for each scorer the points n = 1, 2, 4, ..., N of its curve."""
    names = ("reward", *compared_metrics())
    return [
        CurveSummary(
            scorer,
            [
                PointSummary(
                    point.n,
                    {name: point.cell.interval(name, resampling) for name in names},
                    point.cell.costs(),
                )
                for point in curve
                if _is_power_of_two(point.n) or point is curve[-1]
            ],
        )
        for scorer, curve in curves.items()
    ]


def _comparisons(
    cell: Cell, curve: Sequence[SizedCell], resampling: Resampling
) -> Iterator[BudgetComparison]:
    # Both have the first prompts of the same list.
    count = min(len(cell.prompt_ids), len(curve[0].cell.prompt_ids))
    first, others = cell.first(count), [point.cell.first(count) for point in curve]
    tests: dict[int, dict[str, PairedTest]] = {}  # by index in the curve; budgets may share one
    for budget in BUDGETS:
        costs = [other.mean(budget) for other in others]
        index = largest_within(costs, first.mean(budget))
        if index not in tests:
            tests[index] = _tests(first, others[index], resampling)
        yield BudgetComparison(
            method=cell.method,
            scorer=cell.scorer,
            budget=budget,
            n=curve[index].n,
            most=curve[-1].n,
            share=costs[index] / first.mean(budget),
            tests=tests[index],
        )


def _tests(cell: Cell, other: Cell, resampling: Resampling) -> dict[str, PairedTest]:
    return {
        metric: cell.against(other, metric, resampling)
        for metric in compared_metrics()
        if metric in cell.values and metric in other.values
    }


def _is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0
