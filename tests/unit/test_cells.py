"""Cells as arrays: read from a table, compared with baselines and with best-of-N at equal cost."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.evaluation.cells import Cell, distinct_rows
from orchestrator.evaluation.comparisons import compare_cells, summarize_cell
from orchestrator.evaluation.costs import COSTS
from orchestrator.evaluation.equal_budget import (
    SizedCell,
    curve_of_table,
    curve_summaries,
    equal_budget,
)
from orchestrator.evaluation.statistics import Resampling

DRAWS = Resampling(seed=0, samples=200)
PROMPTS = [f"prompt-{i}" for i in range(12)]


def table(
    rubric: Sequence[float], flops: float = 1.0, score: float | None = 0.5, **columns: object
) -> pa.Table:
    """Responses of the first prompts, with the columns that a cell's stage writes."""
    count = len(rubric)
    return pa.table(
        {
            "prompt_id": PROMPTS[:count],
            "response": [f"response {value}" for value in rubric],
            "stop": ["end", "length"] * (count // 2),
            "score": pa.array([score] * count, pa.float64()),
            "rubric": list(rubric),
            "resolved": [float(value > 0) for value in rubric],
            "rude_remarks": [1.0] * count,
            **{name: [flops] * count for name in COSTS},
            **columns,
        }
    )


def cell(method: str, scorer: str | None, rubric: Sequence[float], flops: float = 1.0) -> Cell:
    score = None if scorer is None else 0.5
    return Cell.of_table(method, scorer, table(rubric, flops, score), {}, ["rude_remarks"])


def test_a_cell_has_the_metrics_grades_and_costs_of_its_table() -> None:
    scored, base = cell("cbs", "orm", [1, -1, 1, 2]), cell("base", None, [0, 0, 0, 0])
    assert {"reward", "rubric", "resolved", "rude_remarks", "finished", *COSTS} <= set(
        scored.values
    )
    assert "reward" not in base.values
    assert scored.values["finished"].tolist() == [1, 0, 1, 0]
    assert scored.first(2).prompt_ids == PROMPTS[:2] and scored.first(2).mean("rubric") == 0
    assert distinct_rows([scored, base, scored]) == [*dict.fromkeys(scored.rows + base.rows)]


def test_wins_and_ties_are_against_the_base_response_of_the_same_prompt() -> None:
    searched, base = cell("cbs", "orm", [1, -1, 0, 2]), cell("base", None, [0] * 8)
    judged = searched.with_win_tie("win_tie", searched.values["rubric"], base.values["rubric"])
    assert judged.values["win_tie"].tolist() == [1, 0, 1, 1]


def test_a_response_has_the_orms_reward_in_every_cell() -> None:
    cells = [cell("cbs", "orm", [1, 2]), cell("base", None, [2, 1])]
    rewards = {row: float(i) for i, row in enumerate(distinct_rows(cells))}
    for one in cells:
        rated = one.with_rewards(rewards)
        assert rated.values["orm_reward"].tolist() == [rewards[row] for row in one.rows]


def test_a_summary_has_intervals_and_none_for_what_was_not_measured() -> None:
    summary = summarize_cell(cell("base", None, [1, -1, 1, 2]), "helpdesk", ["rude_remarks"], DRAWS)
    assert summary.prompts == 4 and summary.metrics["reward_std"] is None
    plain = asdict(summary)
    assert plain["metrics"]["reward"] is None and plain["metrics"]["win_tie"] is None
    resolved = plain["metrics"]["resolved"]
    assert resolved["value"] == 0.75 and resolved["low"] < 0.75 < resolved["high"]
    assert plain["counts"]["rude_remarks"]["value"] == 1
    assert plain["cost"] == dict.fromkeys(COSTS, 1.0)


def test_each_cell_is_compared_with_the_baseline_scorers_and_with_base() -> None:
    cells = [
        cell("base", None, [0] * 6), cell("cbs", "orm", [1] * 6),
        cell("cbs", "orm_continued", [2] * 6), cell("cbs", "prm_sst", [3] * 6),
    ]  # fmt: skip
    comparisons = compare_cells(cells, ["rubric"], DRAWS)
    found = {(c.scorer, c.baseline): c.test.difference for c in comparisons}
    assert found == {
        ("orm", "base"): 1, ("orm_continued", "orm"): 1, ("orm_continued", "base"): 2,
        ("prm_sst", "orm"): 2, ("prm_sst", "orm_continued"): 1, ("prm_sst", "base"): 3,
    }  # fmt: skip


def curve(n_and_flops: dict[int, float]) -> list[SizedCell]:
    return [SizedCell(n, cell("bon", "orm", [n] * 8, flops)) for n, flops in n_and_flops.items()]


@pytest.mark.parametrize(("flops", "n", "share"), [(4.0, 4, 1.0), (7.9, 4, 4 / 7.9), (0.5, 1, 2)])
def test_best_of_n_has_the_largest_n_within_the_methods_cost(
    flops: float, n: int, share: float
) -> None:
    searched = cell("cbs", "orm", [3] * 6, flops)
    points = curve({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0})
    entries = equal_budget([searched, cell("cbs", "other", [0] * 6)], {"orm": points}, DRAWS)
    assert [entry.budget for entry in entries] == ["flops", "seconds"]
    for entry in entries:
        assert (entry.scorer, entry.n, entry.most) == ("orm", n, 8)
        assert entry.share == pytest.approx(share)
        assert entry.tests["reward"].count == 6 if "reward" in entry.tests else True


def test_a_curve_is_read_by_n_and_shown_at_powers_of_two_and_at_its_end() -> None:
    rows = [table([n] * 4, n=[n] * 4) for n in (3, 1, 2)]
    points = curve_of_table("bon", "orm", pa.concat_tables(rows))
    assert [point.n for point in points] == [1, 2, 3]
    assert [point.cell.mean("rubric") for point in points] == [1, 2, 3]
    assert points[0].cell.parameters == {"n": 1}
    four = [*points, SizedCell(5, points[0].cell), SizedCell(6, points[0].cell)]
    (summary,) = curve_summaries({"orm": four}, DRAWS)
    assert [point.n for point in summary.points] == [1, 2, 6]
    assert np.isfinite(summary.points[0].cost["flops"])
