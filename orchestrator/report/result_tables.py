"""Build the result tables: cells, paired tests and agreement rates (section 5, appendix B).

The terminal and the page show the same tables.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from orchestrator.evaluation.metric import METRICS, metrics_in_order
from orchestrator.report.entries import (
    CellEntry,
    PairedEntry,
    Summary,
    mean_of,
    pair_sets,
)
from orchestrator.report.notation import (
    NOTHING,
    facts,
    flops_unit,
    interval,
    number,
    paired,
    printable,
    sign,
)
from orchestrator.report.table import (
    INTERVAL,
    Entry,
    Table,
    label_of,
    make_table,
    method_order,
    name_of,
)

SCORER_REWARD = "reward"  # the metric that is shown with its standard deviation
PER_PROMPT = {
    "policy_tokens_sampled": "policy tokens sampled",
    "policy_tokens_computed": "policy tokens computed",
    "reward_tokens_computed": "reward tokens computed",
    "reward_tokens_reused": "reward tokens reused",
    "policy_calls": "policy calls",
    "reward_calls": "reward calls",
}
SETS = ("strict", "distinct", "decided")  # sets of prefix pairs, in the order of columns
DETAIL_FLOPS = {"policy_flops": "policy", "reward_flops": "reward"}


def tokens_per_prompt(cell: CellEntry) -> float | None:
    """Return the tokens that both models computed per prompt; None if unknown."""
    cost = cell.get("cost") or {}
    policy = cost.get("policy_tokens_computed")
    return None if policy is None else float(policy + (cost.get("reward_tokens_computed") or 0))


def cells_table(summary: Summary, *, detail: bool = False) -> Table:
    """Return the table of cells (method, scorer, parameters, seed).

    Args:
        summary: the summary of the sweep.
        detail: whether to add the columns that only the page has.
    """
    cells = method_order(summary["cells"])
    lead: dict[str, Callable[[CellEntry], str]] = {
        "method": lambda cell: printable(cell["method"]),
        "scorer": lambda cell: name_of(cell["scorer"]),
        "n": lambda cell: number(cell["prompts"], 0),
    }
    if len({(cell["method"], cell["scorer"], cell["seed"]) for cell in cells}) < len(cells):
        lead["parameters"] = lambda cell: facts(cell["parameters"])
    if len({cell["seed"] for cell in cells}) > 1:
        lead["seed"] = lambda cell: str(cell["seed"])
    metrics = {
        name: metric.label
        for name, metric in metrics_in_order().items()
        if detail or not metric.html_only
    }
    scale, unit = flops_unit(_costs(cells, "flops"))
    others = [*metrics.values(), "tokens/prompt", f"{unit}/prompt", "s/prompt"]
    others[list(metrics).index(SCORER_REWARD)] += " \N{PLUS-MINUS SIGN} std"
    longer = detail and "parameters" not in lead
    if longer:
        others += [*PER_PROMPT.values(), *(f"{name} {unit}" for name in DETAIL_FLOPS.values())]
        others.append("parameters")
    best = _best(cells)
    rows = []
    for cell in cells:
        row = [Entry(write(cell)) for write in lead.values()]
        row += [_metric(cell, name, best) for name in metrics]
        row += [Entry(number(tokens_per_prompt(cell), 0))]
        row += [Entry(_scaled(cell, "flops", scale))]
        row += [Entry(number((cell.get("cost") or {}).get("seconds"), 3))]
        row += _details(cell, scale) if longer else []
        rows.append(row)
    return make_table(f"Cells {INTERVAL}", lead, others, rows).without_empty()


def _best(cells: Iterable[CellEntry]) -> dict[tuple[str, str], float]:
    """Return the highest value of each (method, metric) with at least two cells."""
    values: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        for name, metric in METRICS.items():
            if metric.comparable and (measured := mean_of(cell, name)) is not None:
                values.setdefault((cell["method"], name), []).append(measured["value"])
    return {key: max(group) for key, group in values.items() if len(group) > 1}


def _metric(cell: CellEntry, name: str, best: Mapping[tuple[str, str], float]) -> Entry:
    measured = mean_of(cell, name)
    text = interval(measured)
    if name == SCORER_REWARD and measured is not None:
        deviation = cell["metrics"].get("reward_std")
        if isinstance(deviation, int | float):
            text += f" \N{PLUS-MINUS SIGN} {number(deviation)}"
    highest = best.get((cell["method"], name))
    return Entry(text, best=measured is not None and measured["value"] == highest)


def _costs(cells: Iterable[CellEntry], name: str) -> list[float]:
    costs = ((cell.get("cost") or {}).get(name) for cell in cells)
    return [float(cost) for cost in costs if cost is not None]


def _scaled(cell: CellEntry, name: str, scale: float) -> str:
    """Return a mean cost in the unit of the table."""
    return number(next((cost / scale for cost in _costs([cell], name)), None), 1)


def _details(cell: CellEntry, scale: float) -> list[Entry]:
    cost = cell.get("cost") or {}
    return [
        *(Entry(number(cost.get(name), 1)) for name in PER_PROMPT),
        *(Entry(_scaled(cell, name, scale)) for name in DETAIL_FLOPS),
        Entry(facts(cell["parameters"])),
    ]


def comparison_tables(summary: Summary) -> dict[str, Table]:
    """Return a table for each metric: rows are method and scorer, columns are baselines."""
    tests = summary["comparisons"]
    tables = {}
    for metric in dict.fromkeys(test["metric"] for test in tests):
        chosen = method_order(test for test in tests if test["metric"] == metric)
        title = f"Paired differences in {label_of(metric)} {INTERVAL}"
        tables[metric] = _against_baselines(
            title,
            ("method", "scorer"),
            [((test["method"], test["scorer"]), test["baseline"], test["test"]) for test in chosen],
        )
    return tables


def agreement_comparisons_table(summary: Summary) -> Table:
    """Return the paired differences of mean agreement; columns are baselines."""
    lead = ("measure", "scorer", "position", "pairs")
    title = f"Paired differences in agreement {INTERVAL}"
    tests = [
        ((entry["measure"], entry["scorer"], entry["position"], entry["pair_set"]),
         entry["baseline"], entry["test"])
        for entry in summary["agreement_comparisons"]
    ]  # fmt: skip
    return _against_baselines(title, lead, tests)


def _against_baselines(
    title: str,
    lead: Sequence[str],
    tests: Sequence[tuple[tuple[str | None, ...], str, PairedEntry | None]],  # key, baseline
) -> Table:
    baselines = list(dict.fromkeys(baseline for _, baseline, _ in tests))
    rows: dict[tuple[tuple[str | None, ...], int], dict[str, PairedEntry | None]] = {}
    for key, baseline, test in tests:
        again = 0
        while baseline in rows.setdefault((key, again), {}):
            again += 1  # a second test with the same key (another seed) has a separate row
        rows[key, again][baseline] = test
    body = []
    for (key, _), by_baseline in rows.items():
        results = [by_baseline.get(baseline) for baseline in baselines]
        counts = {number(test["count"], 0) for test in results if test is not None}
        row = [Entry(name_of(part)) for part in key]
        row.append(Entry(" / ".join(sorted(counts)) or NOTHING))
        row += [Entry(paired(test), sign=sign(test)) for test in results]
        body.append(row)
    others = [f"against {name_of(baseline)}" for baseline in baselines]
    return make_table(title, (*lead, "n"), others, body)


def agreement_table(summary: Summary) -> Table:
    """Return mean agreement over t: rows are measure and scorer, columns are position and pairs."""
    rates = summary["agreement"]
    means = [(position, pair_set) for position in ("closed", "open") for pair_set in SETS]
    rows: dict[tuple[str, str | None], dict[tuple[str, str], Entry]] = {}
    for rate in rates:
        row = rows.setdefault((rate["measure"], rate["scorer"]), {})
        for pair_set, (_, mean) in pair_sets(rate).items():
            row[rate["position"], pair_set] = Entry(interval(mean))
    body = [
        [Entry(printable(measure)), Entry(name_of(scorer))]
        + [row.get(column, Entry(NOTHING)) for column in means]
        for (measure, scorer), row in rows.items()
    ]
    others = [f"{position}, {pair_set}" for position, pair_set in means]
    title = f"Agreement, mean over t {INTERVAL}"
    return make_table(title, ("measure", "scorer"), others, body).without_empty()


def agreement_by_length_table(summary: Summary) -> Table:
    """Return agreement at each length t: rows are measure, scorer, position and pairs."""
    rates = summary["agreement"]
    lengths = sorted({t for rate in rates for t in rate["grid"]})
    body = []
    for rate in rates:
        for pair_set, (curve, _) in pair_sets(rate).items():
            if pair_set != rate["pair_set"] and not any(curve):
                continue  # the measure has no such set
            at = dict(zip(rate["grid"], curve, strict=True))
            key = [rate["measure"], name_of(rate["scorer"]), rate["position"], pair_set]
            body.append(
                [Entry(printable(part)) for part in key]
                + [Entry(interval(at.get(t))) for t in lengths]
            )
    lead = ("measure", "scorer", "position", "pairs")
    title = f"Agreement at each length t {INTERVAL}"
    return make_table(title, lead, (f"t = {t}" for t in lengths), body).without_empty()
