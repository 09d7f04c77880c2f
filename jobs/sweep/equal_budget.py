"""Every method against best-of-n of its own scorer for the same cost, prompt by prompt.

BoN is what everything has to beat: it needs no search at all. The n is the largest of its curve
whose mean cost over the same prompts does not exceed the method's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.sweep.cells import Cell, interval_of, paired
from jobs.sweep.responses import COSTS
from jobs.sweep.sweep import Sweep
from orchestrator.evaluation.budget import largest_within
from orchestrator.evaluation.metric import compared_metrics

BUDGETS = ("flops", "seconds")
Curves = Mapping[str | None, Sequence[Cell]]  # of each scorer, by rising n


def equal_budget(sweep: Sweep, cells: Sequence[Cell], curves: Curves) -> list[dict[str, Any]]:
    """An entry a method, scorer and kind of cost.

    ``n`` is BoN's, ``most`` the largest there is of it, ``share`` its mean cost divided by the
    method's, ``tests`` the paired differences, method less BoN, by metric.
    """
    methods = sweep.config.search.all_methods
    return [
        entry
        for cell in cells
        if not methods[cell.method].has_curve and cell.scorer in curves
        for entry in _entries(sweep, cell, curves[cell.scorer])
    ]


def curve_summaries(sweep: Sweep, curves: Curves) -> list[dict[str, Any]]:
    """For each scorer the points n = 1, 2, 4, ..., N of its curve, with metrics and mean costs."""
    names = ("reward", *compared_metrics())
    return [
        {
            "scorer": scorer,
            "points": [
                {
                    "n": cell.parameters["n"],
                    "metrics": {name: interval_of(sweep, cell, name) for name in names},
                    "cost": {name: cell.mean(name) for name in COSTS},
                }
                for cell in curve
                if _is_power_of_two(cell.parameters["n"]) or cell is curve[-1]
            ],
        }
        for scorer, curve in curves.items()
    ]


def _entries(sweep: Sweep, cell: Cell, curve: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    count = min(len(cell.prompt_ids), len(curve[0].prompt_ids))  # both took the first so many
    own, others = cell.first(count), [other.first(count) for other in curve]
    tests: dict[int, dict[str, Any]] = {}  # by place in the curve: both budgets may meet there
    for budget in BUDGETS:
        costs = [other.mean(budget) for other in others]
        chosen = largest_within(costs, own.mean(budget))
        if chosen not in tests:
            tests[chosen] = _tests(sweep, own, others[chosen])
        yield {
            "method": cell.method,
            "scorer": cell.scorer,
            "budget": budget,
            "n": others[chosen].parameters["n"],
            "most": others[-1].parameters["n"],
            "share": costs[chosen] / own.mean(budget),
            "tests": tests[chosen],
        }


def _tests(sweep: Sweep, own: Cell, other: Cell) -> dict[str, Any]:
    return {
        metric: paired(sweep, own, other, metric)
        for metric in compared_metrics()
        if metric in own.values and metric in other.values
    }


def _is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0
