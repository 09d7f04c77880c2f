"""What the evaluation concludes of prefix scores: the judge's ties, and the premise."""

from collections.abc import Mapping

import numpy as np
import pytest

from orchestrator.choices import Position
from orchestrator.evaluation.prefix_comparisons import Premise, compare_scorers, premise_of
from orchestrator.evaluation.prefix_grid import Grid
from orchestrator.evaluation.prefix_rates import (
    AgreementRow,
    ScorerRates,
    Sides,
    measure_rates,
    measure_scorer,
    rate_row,
    scorer_rows,
)
from orchestrator.evaluation.statistics import Resampling

PAIRS, LENGTHS = 60, (5, 10, 20)
DRAWS = Resampling(seed=0, samples=200)


@pytest.fixture
def grid() -> Grid:
    """A judge that ties more often the shorter the prefixes are, as a rubric of steps does."""
    draw = np.random.default_rng(0)
    shape = (PAIRS, len(LENGTHS))
    decides = draw.random(shape) < np.array([0.4, 0.7, 1.0])
    h_chosen = draw.normal(size=shape)
    h_rejected = np.where(decides, draw.normal(size=shape), h_chosen)
    faults = (h_chosen < -0.5, h_rejected < -0.5)
    every = np.ones(shape, bool)
    groups = [f"prompt-{i // 2}" for i in range(PAIRS)]
    return Grid([((), ())] * PAIRS, list(LENGTHS), groups, every, every, (h_chosen, h_rejected),
                faults)  # fmt: skip


def with_judge(grid: Grid, h: Sides) -> Grid:
    return Grid(grid.ids, grid.lengths, grid.groups, grid.distinct, grid.reached, h)


def measured(grid: Grid, scores: Sides) -> ScorerRates:
    """The rates of a scorer that scores alike at both positions, the whole response last."""
    with_whole = tuple(np.hstack([side, side[:, -1:]]) for side in scores)
    positions: Mapping[Position, Sides] = {"closed": with_whole, "open": with_whole}  # type: ignore[dict-item]
    return measure_scorer(grid, positions, DRAWS)


def noisy(grid: Grid, noise: float, seed: int) -> Sides:
    assert grid.judge_grades is not None
    draw = np.random.default_rng(seed)
    chosen, rejected = (h + noise * draw.normal(size=h.shape) for h in grid.judge_grades)
    return chosen, rejected


def row_of(rates: ScorerRates, measure: str) -> AgreementRow:
    return next(
        row
        for row in scorer_rows("prm_sst", rates, DRAWS)
        if row.measure == measure and row.position == "closed"
    )


def test_a_perfect_scorers_decided_rate_is_1_at_every_length(grid: Grid) -> None:
    assert grid.judge_grades is not None
    rate = measure_rates(grid, grid.judge_grades, DRAWS)["AR_RM-HP"]
    row = rate_row("perfect", "closed", "AR_RM-HP", grid, rate)
    assert row.pair_set == "decided"
    assert [interval and interval.value for interval in row.decided] == [1.0] * len(LENGTHS)
    assert row.decided_mean is not None
    assert (row.decided_mean.low, row.decided_mean.high) == (1.0, 1.0)
    for per_t, mean in ((row.strict, row.strict_mean), (row.distinct, row.distinct_mean)):
        assert per_t[0] is not None and mean is not None
        assert per_t[0].value < 0.7 and mean.value < 0.9  # the judge's ties count against it


def test_a_measure_without_a_judge_has_no_decided_rate(grid: Grid) -> None:
    assert grid.judge_grades is not None
    row = row_of(measured(grid, grid.judge_grades), "AR_RM-SC")
    assert row.pair_set == "distinct"
    assert list(row.decided) == [None] * len(LENGTHS) and row.decided_mean is None


def test_comparisons_are_over_the_pairs_that_the_judge_decides(grid: Grid) -> None:
    scorers = {
        "orm": measured(grid, noisy(grid, 3.0, 1)),
        "prm_sst": measured(grid, noisy(grid, 0.1, 2)),
    }
    entries = compare_scorers(scorers, DRAWS)
    sets = {entry.measure: entry.pair_set for entry in entries}
    assert sets == {"AR_RM-SC": "distinct", "AR_RM-HP": "decided", "prefix_accuracy": "decided"}
    (test,) = (e.test for e in entries if (e.measure, e.position) == ("AR_RM-HP", "closed"))
    first, second = (
        scorers[name].positions["closed"].rates["AR_RM-HP"].decided for name in ("prm_sst", "orm")
    )
    assert first is not None and second is not None
    assert test.difference == pytest.approx(first.mean.value - second.mean.value)  # type: ignore[union-attr]


def test_scorers_with_other_tokens_are_not_compared(grid: Grid) -> None:
    other = with_judge(grid, grid.judge_grades)  # type: ignore[arg-type]
    scorers = {
        "orm": measured(grid, noisy(grid, 3.0, 1)),
        "prm_sst": measured(other, noisy(grid, 0.1, 2)),
    }
    assert compare_scorers(scorers, DRAWS) == []


def test_a_judge_that_never_decides_is_compared_by_nothing(grid: Grid) -> None:
    tie = np.zeros((PAIRS, len(LENGTHS)))
    ties = with_judge(grid, (tie, tie))
    rates = measured(ties, (tie, tie))
    entries = compare_scorers({"orm": rates, "prm_sst": rates}, DRAWS)
    assert {entry.measure for entry in entries} == {"AR_RM-SC"}


def test_prefix_accuracy_is_over_decided_pairs_alone(grid: Grid) -> None:
    rates = measured(grid, noisy(grid, 0.1, 2))
    row = row_of(rates, "prefix_accuracy")
    assert row.pair_set == "decided" and row.strict_mean is row.distinct_mean is None
    accuracy = rates.positions["closed"].accuracy
    assert accuracy is not None and accuracy.rate is not None
    assert row.decided_mean == accuracy.rate


@pytest.mark.parametrize(
    ("reference", "orm", "verdict"),
    [(0.01, 8.0, "holds"), (8.0, 0.01, "does not hold"), (2.0, 2.1, "not shown")],
)
def test_the_premise_is_as_its_interval_and_its_p_value_say(
    grid: Grid, reference: float, orm: float, verdict: str
) -> None:
    premise = premise_of(
        measured(grid, noisy(grid, reference, 3)), measured(grid, noisy(grid, orm, 4)), "closed",
        DRAWS,
    )  # fmt: skip
    test = premise.difference
    assert test is not None
    assert premise.verdict == verdict
    expected = "holds" if test.low > 0 else "does not hold" if test.high < 0 else "not shown"
    assert verdict == "not shown" or test.p_value <= 0.05
    assert verdict == expected
    if verdict == "not shown":  # though one of the two rates is higher
        assert premise.reference is not None and premise.orm is not None
        assert premise.reference.value != premise.orm.value


def not_tested(premise: Premise) -> bool:
    return premise.verdict == "not tested" and premise.difference is None


def test_the_premise_needs_a_reference_a_judge_and_one_tokenizer(grid: Grid) -> None:
    scores = noisy(grid, 0.1, 2)
    orm = measured(grid, scores)
    without_judge = Grid(grid.ids, grid.lengths, grid.groups, grid.distinct, grid.reached)
    other = with_judge(grid, grid.judge_grades)  # type: ignore[arg-type]
    assert not_tested(premise_of(None, orm, "closed", DRAWS))
    assert not_tested(premise_of(measured(other, scores), orm, "closed", DRAWS))
    rates = measured(without_judge, scores)
    assert not_tested(premise_of(rates, rates, "closed", DRAWS))
    assert not not_tested(premise_of(orm, orm, "closed", DRAWS))
