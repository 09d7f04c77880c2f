"""What the report concludes: premise, agreement over the right pairs, each model's objective."""

from typing import Any

import numpy as np
import pytest
from support.report_summary import full_summary

from orchestrator.report.figures import agreement
from orchestrator.report.notation import interval, paired
from orchestrator.report.page import render
from orchestrator.report.provenance import models_table
from orchestrator.report.result_tables import SETS, agreement_by_length_table, agreement_table
from orchestrator.report.terminal import premise_line


@pytest.fixture(scope="module")
def full() -> Any:
    return full_summary()


@pytest.mark.parametrize("verdict", ["holds", "does not hold", "not shown"])
def test_the_premise_stands_beside_the_interval_that_decides_it(full: Any, verdict: str) -> None:
    line = premise_line(full | {"premise": full["premise"] | {"verdict": verdict}})
    assert line.startswith(f"Premise (SP-PRM paper, section 4.2): {verdict}. ")
    assert line.endswith(f"difference {paired(full['premise']['difference'])}.")


def test_agreement_is_shown_over_each_set_of_pairs_that_a_measure_has(full: Any) -> None:
    table = agreement_table(full)
    names = [column.name for column in table.columns[2:]]
    assert names == [f"{position}, {o}" for position in ("closed", "open") for o in SETS]
    for rate in full["agreement"]:
        (row,) = (
            row for row in table.rows
            if row[0].text == rate["measure"] and row[1].text == (rate["scorer"] or "\N{EN DASH}")
        )  # fmt: skip
        for pair_set in SETS:
            shown = row[2 + names.index(f"{rate['position']}, {pair_set}")].text
            assert shown == interval(rate[f"{pair_set}_mean"])
    by_length = [[entry.text for entry in row[:4]] for row in agreement_by_length_table(full).rows]
    assert ["AR_RM-HP", "orm", "closed", "decided"] in by_length
    assert ["AR_RM-SC", "orm", "closed", "distinct"] in by_length
    assert ["AR_RM-SC", "orm", "closed", "decided"] not in by_length


def test_the_curves_of_a_judged_measure_are_over_the_pairs_that_the_judge_decides(
    full: Any,
) -> None:
    figure = agreement(full)
    assert figure is not None
    panels = {axes.get_title(): axes for axes in figure.axes}
    for title, measure, pair_set in (
        ("AR_RM-HP, decided pairs", "AR_RM-HP", "decided"),
        ("AR_RM-SC, distinct pairs", "AR_RM-SC", "distinct"),
    ):
        drawn = [
            tuple(np.asarray(line.get_ydata(), float).tolist()) for line in panels[title].lines
        ]
        rates = [rate for rate in full["agreement"] if rate["measure"] == measure]
        assert drawn == [tuple(f["value"] for f in rate[pair_set] if f) for rate in rates]


def test_a_model_is_named_by_its_own_objective_and_one_that_was_not_trained_has_no_steps(
    full: Any,
) -> None:
    trained = full["models"][0] | {"name": "implicit", "objective": "dpo"}
    none = dict.fromkeys(("steps", "rows", "partial_pairs", "seconds", "final_loss"))
    ratio = trained | none | {"name": "ratio", "objective": "density_ratio", "loss": []}
    given = ratio | {"name": "mine", "objective": None, "pair_accuracy": None}
    rows = models_table(full | {"models": [trained, ratio, given]}).rows
    dash = "\N{EN DASH}"
    assert [[entry.text for entry in row[:4]] for row in rows] == [
        ["implicit", "dpo", "125", "4,000"],
        ["ratio", "density_ratio", dash, dash],
        ["mine", dash, dash, dash],
    ]
    assert "ratio" in render(full | {"models": [trained, ratio, given]}, {}, "mlflow ui")
