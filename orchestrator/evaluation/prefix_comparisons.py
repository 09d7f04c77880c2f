"""Compare the prefix scores of scorers with those of the ORM, and test the premise of section 4.2.

The premise is that the reference reward model orders prefixes better than the ORM.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.choices import Position
from orchestrator.evaluation.agreement import PairSet, compare_rates
from orchestrator.evaluation.comparisons import BASELINE_SCORERS
from orchestrator.evaluation.prefix_accuracy import PrefixAccuracy
from orchestrator.evaluation.prefix_rates import RNG_KEY, Measure, ScorerRates
from orchestrator.evaluation.statistics import (
    Interval,
    PairedTest,
    Resampling,
    Sign,
    paired_test,
)

Verdict = Literal["holds", "does not hold", "not shown", "not tested"]
# By the sign of the difference between reference and ORM: "" if the interval includes zero.
VERDICTS: Mapping[Sign, Verdict] = {"+": "holds", "-": "does not hold", "": "not shown"}
COMPARED_RATES: tuple[Measure, ...] = ("AR_RM-SC", "AR_RM-HP")
NOT_TESTED = (
    "Without a reference of the run, a rubric of prefixes and one tokenizer for both, the"
    " premise of section 4.2 is not checked."
)
TESTED = (
    "It takes the reference for a better judge of prefixes than the ORM; where it is not, the"
    " weights say little."
)


@dataclass(frozen=True)
class AgreementComparison:
    """The paired test of a scorer's measure against a baseline scorer, over the same pairs."""

    scorer: str
    baseline: str
    position: Position
    measure: Measure
    pair_set: PairSet
    test: PairedTest


@dataclass(frozen=True)
class Premise:
    """Whether the reference orders prefixes better than the ORM.

    ``reference`` and ``orm`` are their prefix accuracies, ``difference`` their paired test; all
    three are None if the premise is not tested.
    """

    verdict: Verdict
    reference: Interval | None
    orm: Interval | None
    difference: PairedTest | None
    text: str


def compare_scorers(
    scorers: Mapping[str, ScorerRates], resampling: Resampling
) -> list[AgreementComparison]:
    """Compare each scorer with the baseline scorers at each position.

    Scorers with different tokens have different prefixes, and are not compared.
    """
    comparisons = []
    for baseline in BASELINE_SCORERS:
        for scorer, rates in scorers.items():
            if baseline not in scorers or scorer in ("orm", baseline):
                continue
            if rates.grid is scorers[baseline].grid:
                comparisons += _comparisons(scorer, baseline, scorers, resampling)
    return comparisons


def premise_of(
    reference: ScorerRates | None,
    orm: ScorerRates | None,
    position: Position,
    resampling: Resampling,
) -> Premise:
    """Test the premise of section 4.2 by the paired difference in prefix accuracy.

    The verdict is "holds" or "does not hold" only if interval and p-value both show it.
    """
    if reference is None or orm is None or reference.grid is not orm.grid:
        return Premise("not tested", None, None, None, NOT_TESTED)
    first, second = (rates.positions[position].accuracy for rates in (reference, orm))
    if first is None or second is None:
        return Premise("not tested", None, None, None, NOT_TESTED)
    test = _paired_accuracy(first, second, resampling)
    if test is None:
        return Premise("not tested", None, None, None, NOT_TESTED)
    return Premise(VERDICTS[test.sign], first.rate, second.rate, test, TESTED)


def _comparisons(
    scorer: str, baseline: str, scorers: Mapping[str, ScorerRates], resampling: Resampling
) -> list[AgreementComparison]:
    """Return the tests of a scorer against one baseline; a test without pairs is left out."""
    comparisons = []
    for position, measured in scorers[scorer].positions.items():
        other = scorers[baseline].positions[position]
        tests: list[tuple[Measure, PairSet, PairedTest | None]] = [
            (
                measure,
                measured.rates[measure].comparison_set,
                compare_rates(
                    measured.rates[measure], other.rates[measure], resampling.seed, RNG_KEY,
                    samples=resampling.samples,
                ),
            )
            for measure in COMPARED_RATES
            if measure in measured.rates
        ]  # fmt: skip
        if measured.accuracy is not None and other.accuracy is not None:
            test = _paired_accuracy(measured.accuracy, other.accuracy, resampling)
            tests.append(("prefix_accuracy", "decided", test))
        comparisons += [
            AgreementComparison(scorer, baseline, position, measure, pair_set, test)
            for measure, pair_set, test in tests
            if test is not None
        ]
    return comparisons


def _paired_accuracy(
    first: PrefixAccuracy, second: PrefixAccuracy, resampling: Resampling
) -> PairedTest | None:
    if not len(first.correct):
        return None
    return paired_test(
        first.correct, second.correct, resampling.seed, RNG_KEY,
        groups=first.groups, samples=resampling.samples,
    )  # fmt: skip
