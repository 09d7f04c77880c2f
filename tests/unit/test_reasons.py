"""Why a cell differs from the ORM's: which counts are told, in which order, and when none is."""

from typing import Any

from orchestrator.report.reasons import counts_table, reasons


def paired(difference: float, half: float, p_value: float = 0.04) -> dict[str, Any]:
    return {
        "difference": difference, "low": difference - half, "high": difference + half,
        "p_value": p_value, "count": 300,
    }  # fmt: skip


def entry(metric: str, found: dict[str, Any] | None, **other: Any) -> dict[str, Any]:
    cell = {"method": "cbs", "scorer": "prm_sst", "baseline": "orm"}
    return cell | {"metric": metric, "test": found} | other


LOWER = entry("resolved", paired(-0.08, 0.05))
VERBS = entry("wrong_verbs", paired(-0.2, 0.1))
REPEATS = entry("repeated_steps", paired(0.3, 0.1))
PARTS = entry("wrong_parts", paired(0.01, 0.1))


def told(comparisons: list[dict[str, Any]], counts: list[dict[str, Any]]) -> list[str]:
    summary: Any = {"comparisons": comparisons, "count_comparisons": counts}
    return reasons(summary)


def test_a_lower_rate_is_told_with_the_counts_that_are_certain_largest_first() -> None:
    assert told([LOWER], [VERBS, REPEATS, PARTS]) == [
        "cbs, prm_sst: resolved lower than with the ORM (-0.080 [-0.130, -0.030] p 0.040)."
        " Counts per response, difference to the ORM: repeated steps +0.300 [+0.200, +0.400] p"
        " 0.040; wrong verbs"
        " -0.200 [-0.300, -0.100] p 0.040."
    ]


def test_the_verdict_follows_interval_and_p_value() -> None:
    for found, verdict in (
        (paired(0.08, 0.05), "higher than"),
        (paired(0.02, 0.05), "not significantly different from that"),
        (paired(0.08, 0.05, p_value=0.06), "not significantly different from that"),
    ):
        (sentence,) = told([entry("resolved", found)], [REPEATS])
        assert f"resolved {verdict} with the ORM" in sentence
    assert told([LOWER], [entry("wrong_verbs", paired(-0.2, 0.1, p_value=0.06))]) == []


def test_counts_of_other_cells_and_baselines_are_not_taken() -> None:
    others = [REPEATS | {"method": "tbs"}, REPEATS | {"scorer": "x"}, REPEATS | {"baseline": "b"}]
    assert told([LOWER], others) == []
    assert told([LOWER], [*others, VERBS])[0].count(" p ") == 2


def test_where_no_count_is_certain_or_measured_nothing_is_told() -> None:
    assert told([LOWER], [PARTS, REPEATS | {"test": None}]) == []
    assert told([LOWER], []) == told([], [VERBS]) == []
    assert told([entry("rubric", paired(1, 0.1))], [VERBS]) == []  # no rate to explain


def test_accuracy_is_explained_where_there_is_no_resolved_rate() -> None:
    (sentence,) = told([entry("accuracy", paired(-0.1, 0.01))], [VERBS])
    assert sentence.startswith("cbs, prm_sst: accuracy lower")


def test_the_table_has_a_column_a_kind_and_only_cells_that_were_counted() -> None:
    interval = {"value": 0.5, "low": 0.25, "high": 0.75, "count": 300}
    counted = {"method": "cbs", "scorer": None, "prompts": 300, "counts": {"wrong_verbs": interval}}
    summary: Any = {"cells": [counted, {"method": "base", "scorer": None, "counts": {}}]}
    table = counts_table(summary)
    assert [column.name for column in table.columns] == ["method", "scorer", "n", "wrong verbs"]
    assert [entry.text for entry in table.rows[0]][2:] == ["300", "0.50 [0.25, 0.75]"]
    assert len(table.rows) == 1
