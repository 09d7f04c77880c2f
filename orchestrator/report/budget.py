"""Build the table of equal budgets: each method and best-of-n with its scorer at the same cost."""

from orchestrator.evaluation.metric import metrics_in_order
from orchestrator.report.entries import BudgetEntry, Summary
from orchestrator.report.notation import number, paired, printable, sign
from orchestrator.report.table import (
    INTERVAL,
    Entry,
    Table,
    label_of,
    make_table,
    method_order,
    name_of,
)

BUDGETS = {"flops": "FLOPs", "seconds": "seconds"}
NEAR = 0.95  # costs count as equal from this share of the budget on
# The meaning of the marks behind the n of BoN.
MARKS = {
    "*": "* BoN with its largest N is cheaper than the method, so it used less than the budget.",
    "\N{DAGGER}": "\N{DAGGER} Even BoN-1 costs more than the method, so it used more than that.",
}


def equal_budget_table(summary: Summary) -> Table:
    """Return the table: rows are method, scorer and cost, columns are metrics.

    Values are differences to BoN. One column has the n of BoN, the next one the share of the
    method's budget that BoN used, e.g. ``BoN-16*`` and 0.60.
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
        results = [tests.get(metric) for metric in metrics]
        rows.append(
            [Entry(text) for text in row]
            + [Entry(paired(test), sign=sign(test)) for test in results]
        )
    title = f"At equal budget: differences to BoN of the same scorer {INTERVAL}"
    return make_table(title, lead, others, rows)


def budget_marks(summary: Summary) -> list[str]:
    """Return an explanation of each mark in the table."""
    used = {_mark(entry) for entry in summary["equal_budget"]}
    return [text for mark, text in MARKS.items() if mark in used]


def _mark(entry: BudgetEntry) -> str:
    if entry["share"] > 1:
        return "\N{DAGGER}"
    return "*" if entry["n"] == entry["most"] and entry["share"] < NEAR else ""
