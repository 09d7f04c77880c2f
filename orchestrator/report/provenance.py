"""Build the tables of provenance: models, weights, stages, rejects and versions."""

from orchestrator.report.entries import Summary
from orchestrator.report.notation import NOTHING, duration, facts, interval, number, printable
from orchestrator.report.table import INTERVAL, Entry, Table, make_table, name_of
from orchestrator.stages.result import WeightsEntry


def models_table(summary: Summary) -> Table:
    """Return the table of models (section 4): objective, data, loss, accuracy on held-out pairs.

    Models that the run did not train have no steps.
    """
    rows = [
        [
            Entry(printable(model["name"])),
            Entry(name_of(model["objective"])),
            Entry(number(model["steps"], 0)),
            Entry(number(model["rows"], 0)),
            Entry(number(model["partial_pairs"], 0)),
            Entry(number(model["final_loss"], 4)),
            Entry(interval(model["pair_accuracy"])),
            Entry(duration(model["seconds"])),
        ]
        for model in summary["models"]
    ]
    others = (
        "steps", "rows", "partial pairs", "final loss", f"pair accuracy {INTERVAL}", "time",
    )  # fmt: skip
    return make_table("Models", ("model", "objective"), others, rows).without_empty()


def weights_table(summary: Summary) -> Table:
    """Return the partial pairs of each truncation: kept, and dropped by reason (section 4.2)."""
    weights = summary["weights"]
    reasons = list(dict.fromkeys(reason for entry in weights for reason in entry["dropped"]))
    rows = [
        [
            Entry(printable(entry["truncation"])),
            Entry(number(entry["partial_pairs"], 0)),
            Entry(number(entry["kept"], 0)),
            *(Entry(number(_dropped(entry).get(reason), 0)) for reason in reasons),
            Entry(number(entry["capped"], 0)),
        ]
        for entry in weights
    ]
    dropped = (f"dropped: {printable(reason).replace('_', ' ')}" for reason in reasons)
    others = ("partial pairs", "kept", *dropped, "weight capped")
    return make_table("Reference weights", ("truncation",), others, rows).without_empty()


def _dropped(entry: WeightsEntry) -> dict[str, int]:
    return {name: n for name, n in entry["dropped"].items() if isinstance(n, int)}


def stages_table(summary: Summary) -> Table:
    """Return the table of stages with key, time and figures."""
    rows = [
        [
            Entry(printable(stage["stage"])),
            Entry(printable(stage["key"])),
            Entry(facts(stage["figures"])),
            Entry(duration(stage["seconds"])),
        ]
        for stage in summary["stages"]
    ]
    table = make_table("Stages", ("stage", "key", "figures"), ("time",), rows)
    return Table(table.title, table.columns, table.rows)  # without groups


def rejects_table(summary: Summary) -> Table:
    """Return the table of rejected rows by reason, and their sum."""
    rejects = summary["rejects"]
    rows = [
        [Entry(printable(reason)), Entry(number(count, 0))]
        for reason, count in rejects["reasons"].items()
    ]
    rows.append([Entry("all"), Entry(number(rejects["count"], 0))])
    table = make_table("Rejected rows", ("reason",), ("rows",), rows)
    return Table(table.title, table.columns, table.rows)


def versions_table(summary: Summary) -> Table:
    """Return the versions of the packages that computed the results."""
    rows = [
        [Entry(printable(package)), Entry(NOTHING if version is None else printable(version))]
        for package, version in summary["versions"].items()
    ]
    table = make_table("Versions", ("package", "version"), (), rows)
    return Table(table.title, table.columns, table.rows)
