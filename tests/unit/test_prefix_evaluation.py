"""What the sweep's evaluation concludes of prefix scores: the judge's ties, and the premise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from jobs.sweep.prefix_evaluation import Grid, _accuracy_row, _compare, _measures, _premise, _row
from jobs.sweep.runner import sweep_of
from jobs.sweep.sweep import Sweep
from orchestrator.config.load import load_config
from orchestrator.evaluation.prefix_accuracy import PrefixAccuracy, prefix_accuracy

PAIRS, LENGTHS = 60, (5, 10, 20)
FAULTS = (0.0, 1.0)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    config = load_config(None, ["evaluation.bootstrap_samples=200"])
    return sweep_of(config, str(tmp_path), Console(quiet=True))


@pytest.fixture
def grid() -> Grid:
    """A judge that ties more often the shorter the prefixes are, as a rubric of steps does."""
    draw = np.random.default_rng(0)
    shape = (PAIRS, len(LENGTHS))
    decides = draw.random(shape) < np.array([0.4, 0.7, 1.0])
    h_chosen = draw.normal(size=shape)
    h_rejected = np.where(decides, draw.normal(size=shape), h_chosen)
    faults = (h_chosen < -0.5, h_rejected < -0.5)
    whole = np.ones(shape, bool)
    groups = [f"prompt-{i // 2}" for i in range(PAIRS)]
    return Grid([((), ())] * PAIRS, list(LENGTHS), groups, whole, whole, (h_chosen, h_rejected),
                faults)  # fmt: skip


def test_a_perfect_scorers_decided_rate_is_1_at_every_length(sweep: Sweep, grid: Grid) -> None:
    assert grid.h is not None
    rate = _measures(sweep, grid, grid.h)["AR_RM-HP"]
    row = _row("perfect", "closed", "AR_RM-HP", grid, rate)
    assert row["over"] == "decided"
    assert [interval["value"] for interval in row["decided"]] == [1.0] * len(LENGTHS)
    assert (row["decided_mean"]["low"], row["decided_mean"]["high"]) == (1.0, 1.0)
    for over in ("strict", "distinct"):  # as it was before: the judge's ties counted against it
        assert row[over][0]["value"] < 0.7 and row[f"{over}_mean"]["value"] < 0.9


def test_a_measure_without_a_judge_has_no_decided_rate(sweep: Sweep, grid: Grid) -> None:
    assert grid.h is not None
    row = _row("orm", "closed", "AR_RM-SC", grid, _measures(sweep, grid, grid.h)["AR_RM-SC"])
    assert row["over"] == "distinct"
    assert row["decided"] == [None] * len(LENGTHS) and row["decided_mean"] is None


def accuracy(sweep: Sweep, grid: Grid, scores: tuple[np.ndarray, np.ndarray]) -> PrefixAccuracy:
    assert grid.faults is not None
    return prefix_accuracy(
        *scores, *grid.faults, grid.reached, sweep.config.seed, groups=grid.groups, samples=200,
        fault_in="rejected",
    )  # fmt: skip


def noisy(grid: Grid, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    assert grid.h is not None
    draw = np.random.default_rng(seed)
    chosen, rejected = (h + noise * draw.normal(size=h.shape) for h in grid.h)
    return chosen, rejected


def test_comparisons_are_over_the_pairs_that_the_judge_decides(sweep: Sweep, grid: Grid) -> None:
    scores = {"orm": noisy(grid, 3.0, 1), "prm_sst": noisy(grid, 0.1, 2)}
    rates = {
        (name, position, measure): rate
        for name, own in scores.items()
        for position in ("closed", "open")
        for measure, rate in _measures(sweep, grid, own).items()
    }
    accuracies = {(n, p): accuracy(sweep, grid, own) for n, own in scores.items()
                  for p in ("closed", "open")}  # fmt: skip
    entries = _compare(sweep, {"orm": grid, "prm_sst": grid}, rates, accuracies)
    over = {entry["measure"]: entry["over"] for entry in entries}
    assert over == {"AR_RM-SC": "distinct", "AR_RM-HP": "decided", "prefix_accuracy": "decided"}
    (test,) = (
        e["test"] for e in entries if (e["measure"], e["position"]) == ("AR_RM-HP", "closed")
    )
    first, second = (rates[name, "closed", "AR_RM-HP"].decided for name in ("prm_sst", "orm"))
    assert first is not None and second is not None
    assert test["difference"] == pytest.approx(first.mean.value - second.mean.value)  # type: ignore[union-attr]


def test_a_judge_that_never_decides_is_compared_by_nothing(sweep: Sweep, grid: Grid) -> None:
    tie = np.zeros((PAIRS, len(LENGTHS)))
    grid.h = (tie, tie)
    rates = {
        (name, position, measure): rate
        for name in ("orm", "prm_sst")
        for position in ("closed", "open")
        for measure, rate in _measures(sweep, grid, (tie, tie)).items()
    }
    entries = _compare(sweep, {"orm": grid, "prm_sst": grid}, rates, {})
    assert {entry["measure"] for entry in entries} == {"AR_RM-SC"}


def test_prefix_accuracy_is_over_decided_pairs_alone(sweep: Sweep, grid: Grid) -> None:
    accuracies = accuracy(sweep, grid, noisy(grid, 0.1, 2))
    row = _accuracy_row(sweep, "prm_sst", "closed", grid, accuracies)
    assert row["over"] == "decided" and row["strict_mean"] is row["distinct_mean"] is None
    assert accuracies.rate is not None and row["decided_mean"]["value"] == accuracies.rate.value


@pytest.mark.parametrize(
    ("reference", "orm", "verdict"),
    [(0.01, 8.0, "holds"), (8.0, 0.01, "does not hold"), (2.0, 2.1, "not shown")],
)
def test_the_premise_is_as_its_interval_and_its_p_value_say(
    sweep: Sweep, grid: Grid, reference: float, orm: float, verdict: str
) -> None:
    accuracies = {
        ("reference", "closed"): accuracy(sweep, grid, noisy(grid, reference, 3)),
        ("orm", "closed"): accuracy(sweep, grid, noisy(grid, orm, 4)),
    }
    premise = _premise(sweep, {"reference": grid, "orm": grid}, accuracies)
    test: dict[str, Any] = premise["difference"]
    low, high = test["low"], test["high"]
    assert premise["verdict"] == verdict
    expected = "holds" if low > 0 else "does not hold" if high < 0 else "not shown"
    assert verdict == "not shown" or test["p_value"] <= 0.05
    assert verdict == expected
    if verdict == "not shown":  # though one of the two rates is higher
        assert premise["reference"]["value"] != premise["orm"]["value"]


def test_without_a_reference_the_premise_is_not_tested(sweep: Sweep, grid: Grid) -> None:
    premise = _premise(sweep, {"orm": grid}, {})
    assert premise["verdict"] == "not tested" and premise["difference"] is None
