"""Explain why a scorer's responses are better or worse than the ORM's, by counts of faults.

The counts show which faults a reward model prevents and which it misses; a rate only sums them up.
"""

from collections.abc import Sequence

from orchestrator.evaluation.metric import metrics_in_order
from orchestrator.report.entries import ComparisonEntry, Summary
from orchestrator.report.notation import interval, number, paired, printable, sign
from orchestrator.report.table import (
    INTERVAL,
    Entry,
    Table,
    label_of,
    make_table,
    method_order,
    name_of,
)

BASELINE = "orm"
VERDICTS = {"+": "higher than", "-": "lower than", "": "not significantly different from that"}


def counts_table(summary: Summary) -> Table:
    """Return the mean counts in the responses of each cell: rows are cells, columns are counts."""
    cells = [cell for cell in method_order(summary["cells"]) if cell.get("counts")]
    kinds = list(dict.fromkeys(kind for cell in cells for kind in cell["counts"]))
    body = [
        [Entry(printable(cell["method"])), Entry(name_of(cell["scorer"]))]
        + [Entry(number(cell["prompts"], 0))]
        + [Entry(interval(cell["counts"].get(kind))) for kind in kinds]
        for cell in cells
    ]
    others = [_words(kind) for kind in kinds]
    return make_table(
        f"Mean counts per response {INTERVAL}", ("method", "scorer", "n"), others, body
    )


def reasons(summary: Summary) -> list[str]:
    """Return a sentence for each cell: how its rate and its counts differ from the ORM's.

    Cells without a count that differs significantly from the ORM's have no sentence.
    """
    tests = method_order(t for t in summary["comparisons"] if t["baseline"] == BASELINE)
    rates = [
        m
        for m, kind in metrics_in_order().items()
        if kind.measures_correctness and kind.kind == "rate"
    ]
    rate = next((r for r in rates if any(t["metric"] == r for t in tests)), None)
    counts: dict[tuple[str, str | None], list[ComparisonEntry]] = {}
    for test in summary["count_comparisons"]:
        if test["baseline"] == BASELINE:
            counts.setdefault((test["method"], test["scorer"]), []).append(test)
    sentences = [
        _sentence(test, counts.get((test["method"], test["scorer"]), []))
        for test in tests
        if test["metric"] == rate and test["test"] is not None
    ]
    return [sentence for sentence in sentences if sentence]


def _sentence(entry: ComparisonEntry, counts: Sequence[ComparisonEntry]) -> str:
    tests = [(count["metric"], test) for count in counts if (test := count["test"]) is not None]
    significant = [(metric, test) for metric, test in tests if sign(test)]
    if not significant:
        return ""
    significant.sort(key=lambda pair: -abs(pair[1]["difference"]))
    details = "; ".join(f"{_words(metric)} {paired(test)}" for metric, test in significant)
    verdict = VERDICTS[sign(entry["test"])]
    rate = label_of(entry["metric"])
    return (
        f"{printable(entry['method'])}, {name_of(entry['scorer'])}: {rate} {verdict} with the ORM"
        f" ({paired(entry['test'])}). Counts per response, difference to the ORM: {details}."
    )


def _words(kind: str) -> str:
    return printable(kind).replace("_", " ")
