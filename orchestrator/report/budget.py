"""The table of equal budgets: each method against best-of-n of its scorer for the same cost."""

from collections.abc import Mapping
from typing import Any

from orchestrator.evaluation.metric import metrics_in_order
from orchestrator.report.notation import number, paired, printable, sign
from orchestrator.report.rows import (
    INTERVAL,
    Entry,
    Summary,
    Table,
    label_of,
    make_table,
    method_order,
    name_of,
)

BUDGETS = {"flops": "FLOPs", "seconds": "seconds"}
NEAR = 0.95  # from this share of the budget on the largest N is as good as equal
# What the marks behind BoN's n say; only those that a table has are told.
MARKS = {
    "*": "* BoN's largest N is cheaper than the method: it had less than the budget.",
    "\N{DAGGER}": "\N{DAGGER} Even BoN-1 costs more than the method: it had more than the budget.",
}


def equal_budget_table(summary: Summary) -> Table:
    """One row a method, scorer and kind of cost; metrics across, as differences to BoN.

    The share of the method's budget that BoN took stands beside its n, e.g. ``BoN-16*`` and 0.60.
    """
    entries = method_order(summary["equal_budget"])
    metrics = [m for m in metrics_in_order() if any(m in entry["tests"] for entry in entries)]
    lead = ("method", "scorer", "budget", "against")
    others = ("share of the budget", "n", *map(label_of, metrics))
    rows = []
    for entry in entries:
        tests = entry["tests"]
        count = max((test["count"] for test in tests.values()), default=None)
        row = [printable(entry["method"]), name_of(entry["scorer"]), BUDGETS[entry["budget"]]]
        row += [f"BoN-{entry['n']}{_mark(entry)}", number(entry["share"]), number(count, 0)]
        found = [tests.get(metric) for metric in metrics]
        rows.append(
            [Entry(text) for text in row] + [Entry(paired(test), sign=sign(test)) for test in found]
        )
    title = f"At equal budget: differences to BoN of the same scorer {INTERVAL}"
    return make_table(title, lead, others, rows)


def budget_marks(summary: Summary) -> list[str]:
    """What the marks in the table mean, of those that it has."""
    used = {_mark(entry) for entry in summary["equal_budget"]}
    return [text for mark, text in MARKS.items() if mark in used]


def _mark(entry: Mapping[str, Any]) -> str:
    if entry["share"] > 1:
        return "\N{DAGGER}"
    return "*" if entry["n"] == entry["most"] and entry["share"] < NEAR else ""
