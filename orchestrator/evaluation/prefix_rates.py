"""Compute agreement rates and reward gap (appendix B), and prefix accuracy, of one scorer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.choices import Position
from orchestrator.evaluation.agreement import (
    Curve,
    PairSet,
    PrefixRates,
    ar_rm_hp,
    ar_rm_sc,
    ar_sc_hp,
    reward_gap,
)
from orchestrator.evaluation.prefix_accuracy import PrefixAccuracy, prefix_accuracy
from orchestrator.evaluation.prefix_grid import Grid
from orchestrator.evaluation.resampling import Floats
from orchestrator.evaluation.statistics import Interval, Resampling, mean_interval

Measure = Literal["prefix_accuracy", "AR_RM-SC", "AR_RM-HP", "AR_SC-HP", "reward_gap"]
# In the order of the report.
MEASURES: tuple[Measure, ...] = (
    "prefix_accuracy", "AR_RM-SC", "AR_RM-HP", "AR_SC-HP", "reward_gap",
)  # fmt: skip
POSITIONS: tuple[Position, ...] = ("closed", "open")
RNG_KEY = "agreement"  # names the resampling draws of all rates
Sides = tuple[Floats, Floats]  # scores of the chosen and of the rejected prefixes


@dataclass(frozen=True)
class AgreementRow:
    """One measure of a scorer in summary.json: intervals at each t, and for the mean over the grid.

    strict, distinct and decided are the sets of pairs of ``PrefixRates`` (agreement.py);
    ``pair_set`` names the one that comparisons use. An interval is None if the set has no pair at
    that t. ``scorer`` is None for a measure of the judge alone; its position, "closed", is a
    placeholder then.
    """

    scorer: str | None
    position: Position
    measure: Measure
    grid: list[int]
    pair_set: PairSet
    strict: Sequence[Interval | None]
    distinct: Sequence[Interval | None]
    decided: Sequence[Interval | None]
    strict_mean: Interval | None
    distinct_mean: Interval | None
    decided_mean: Interval | None


@dataclass(frozen=True, eq=False)
class PositionRates:
    """Rates of a scorer at one position; ``accuracy`` is None if no judge counts faults."""

    rates: Mapping[Measure, PrefixRates]
    accuracy: PrefixAccuracy | None


@dataclass(frozen=True, eq=False)
class ScorerRates:
    """Rates of a scorer at all positions.

    ``pair_accuracy`` is, for each position, the share of pairs whose whole chosen response has the
    higher score.
    """

    grid: Grid
    positions: Mapping[Position, PositionRates]
    pair_accuracy: Mapping[Position, Interval]


def measure_scorer(
    grid: Grid, scores: Mapping[Position, Sides], resampling: Resampling
) -> ScorerRates:
    """Return the rates of a scorer at each position.

    Scores are (N, G + 1); the last column is the whole response.

    Raises:
        ValueError: a score is NaN or infinite, or shapes do not fit the grid.
    """
    positions, pair_accuracy = {}, {}
    for position, (chosen, rejected) in scores.items():
        prefixes = chosen[:, :-1], rejected[:, :-1]
        positions[position] = PositionRates(
            measure_rates(grid, prefixes, resampling), measure_accuracy(grid, prefixes, resampling)
        )
        right = (chosen[:, -1] > rejected[:, -1]).astype(float)
        pair_accuracy[position] = mean_interval(
            right, resampling.seed, RNG_KEY, groups=grid.groups, samples=resampling.samples
        )
    return ScorerRates(grid, positions, pair_accuracy)


def measure_rates(grid: Grid, scores: Sides, resampling: Resampling) -> dict[Measure, PrefixRates]:
    """Return the agreement rates and the reward gap of prefix scores (N, G) of both sides."""
    key, groups, samples = (resampling.seed, RNG_KEY), grid.groups, resampling.samples
    rates: dict[Measure, PrefixRates] = {
        "AR_RM-SC": ar_rm_sc(*scores, grid.distinct, *key, groups=groups, samples=samples),
        "reward_gap": reward_gap(*scores, grid.distinct, *key, groups=groups, samples=samples),
    }
    if grid.judge_grades is not None:
        rates["AR_RM-HP"] = ar_rm_hp(
            *scores, *grid.judge_grades, grid.distinct, *key, groups=groups, samples=samples
        )
    return rates


def measure_accuracy(grid: Grid, scores: Sides, resampling: Resampling) -> PrefixAccuracy | None:
    """Return the prefix accuracy of prefix scores (N, G) of both sides.

    Returns None if no judge counts faults.
    """
    if grid.faults is None:
        return None
    return prefix_accuracy(
        *scores, *grid.faults, grid.reached, resampling.seed, RNG_KEY,
        groups=grid.groups, samples=resampling.samples, fault_in="rejected",
    )  # fmt: skip


def judge_row(grid: Grid, resampling: Resampling) -> AgreementRow | None:
    """Return the row of AR_SC-HP, which depends only on the judge; None without a judge.

    It belongs to no position: "closed" is a placeholder.
    """
    if grid.judge_grades is None:
        return None
    rates = ar_sc_hp(
        *grid.judge_grades, grid.distinct, resampling.seed, RNG_KEY,
        groups=grid.groups, samples=resampling.samples,
    )  # fmt: skip
    return rate_row(None, "closed", "AR_SC-HP", grid, rates)


def scorer_rows(scorer: str, rates: ScorerRates, resampling: Resampling) -> list[AgreementRow]:
    """Return one row per position and measure of a scorer."""
    rows = []
    for position, measured in rates.positions.items():
        rows += [
            rate_row(scorer, position, measure, rates.grid, rate)
            for measure, rate in measured.rates.items()
        ]
        if measured.accuracy is not None:
            rows.append(accuracy_row(scorer, position, rates.grid, measured.accuracy, resampling))
    return rows


def rate_row(
    scorer: str | None, position: Position, measure: Measure, grid: Grid, rates: PrefixRates
) -> AgreementRow:
    """Return the row of one agreement rate or of the reward gap."""
    decided = rates.decided or Curve((None,) * len(grid.lengths), None)
    return AgreementRow(
        scorer, position, measure, grid.lengths, rates.comparison_set,
        rates.strict.per_t, rates.distinct.per_t, decided.per_t,
        rates.strict.mean, rates.distinct.mean, decided.mean,
    )  # fmt: skip


def accuracy_row(
    scorer: str, position: Position, grid: Grid, accuracy: PrefixAccuracy, resampling: Resampling
) -> AgreementRow:
    """Return the row of the prefix accuracy.

    Its cases are pairs in which one prefix has a fault, so they are distinct and decided.
    """
    per_t = []
    for column in range(len(grid.lengths)):
        here = accuracy.cases[:, 1] == column
        interval = None
        if here.any():
            interval = mean_interval(
                accuracy.correct[here], resampling.seed, RNG_KEY,
                groups=np.asarray(accuracy.groups)[here], samples=resampling.samples,
            )  # fmt: skip
        per_t.append(interval)
    nothing = [None] * len(grid.lengths)
    return AgreementRow(
        scorer, position, "prefix_accuracy", grid.lengths, "decided",
        nothing, nothing, per_t, None, None, accuracy.rate,
    )  # fmt: skip
