"""Compute agreement rates (section 3, appendix B) and the reward gap at prefix lengths t.

AR_RM-SC(t), AR_SC-HP(t), AR_RM-HP(t) and |r(x, y_w<t) - r(x, y_l<t)|, are computed from plain
arrays of scores: r is the score of a reward model, h the grade of a judge (the rubric, an LLM).
This module does not depend on models and texts.

The paper's comparison is strict (>): if the judge ties, no scorer can agree with it, so even the
judge's own values do not reach 1. Conclusions are therefore drawn over the pairs on which the judge
does not tie.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.evaluation.resampling import Bools, Floats, Groups, as_finite_array
from orchestrator.evaluation.statistics import (
    BOOTSTRAP_SAMPLES,
    LEVEL,
    Interval,
    PairedTest,
    grid_intervals,
    paired_test,
)
from orchestrator.randomness import Key

PairSet = Literal["strict", "distinct", "decided"]


@dataclass(frozen=True)
class Curve:
    """A rate at each t of the grid, and the mean of these rates.

    The rate is None at a t without pairs; the mean excludes it.
    """

    per_t: tuple[Interval | None, ...]
    mean: Interval | None


@dataclass(frozen=True, eq=False)
class PrefixRates:
    """The values of one measure for N pairs at G lengths, and three sets of prefix pairs.

    Attributes:
        strict: all pairs, as in appendix B: a tie and a pair of equal prefixes disagree.
        distinct: pairs whose two prefixes differ at t; a tie counts as disagreement.
        decided: pairs of ``distinct`` where h does not tie (None for measures without h). A tie of
            r counts as disagreement, since the judge prefers one of the two.
        values: (N, G) float64: 1 where the two criteria agree, else 0; or the gap.
        counted: the (N, G) mask of each set; it depends on the pairs and on h, not on the scorer.
    """

    strict: Curve
    distinct: Curve
    decided: Curve | None
    values: Floats
    counted: Mapping[PairSet, Bools]
    groups: NDArray[np.generic]

    @property
    def comparison_set(self) -> PairSet:
        """The set of pairs for comparisons: "decided" if there is a judge, else "distinct"."""
        return "distinct" if self.decided is None else "decided"


def ar_rm_sc(
    r_chosen: ArrayLike,
    r_rejected: ArrayLike,
    distinct: ArrayLike,
    *key: Key,
    groups: Groups | None = None,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
) -> PrefixRates:
    """Return AR_RM-SC(t): the share of pairs with r(x, y_w<t) > r(x, y_l<t).

    Rewards (N, G); ``distinct`` (N, G) bool, whether the two prefixes differ; ``groups`` (N,)
    prompt ids, which the bootstrap resamples.

    Raises:
        ValueError: a reward is NaN or infinite, there is no pair, or shapes do not fit.
    """
    (r_c, r_r), differ = _arrays({"r_chosen": r_chosen, "r_rejected": r_rejected}, distinct)
    return _rates(r_c > r_r, differ, None, key, groups, level, samples)


def ar_sc_hp(
    h_chosen: ArrayLike,
    h_rejected: ArrayLike,
    distinct: ArrayLike,
    *key: Key,
    groups: Groups | None = None,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
) -> PrefixRates:
    """Return AR_SC-HP(t): the share of pairs with h(x, y_w<t) > h(x, y_l<t).

    Arguments as in ``ar_rm_sc``.

    Raises:
        ValueError: a grade is NaN or infinite, there is no pair, or shapes do not fit.
    """
    (h_c, h_r), differ = _arrays({"h_chosen": h_chosen, "h_rejected": h_rejected}, distinct)
    return _rates(h_c > h_r, differ, h_c != h_r, key, groups, level, samples)


def ar_rm_hp(
    r_chosen: ArrayLike,
    r_rejected: ArrayLike,
    h_chosen: ArrayLike,
    h_rejected: ArrayLike,
    distinct: ArrayLike,
    *key: Key,
    groups: Groups | None = None,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
) -> PrefixRates:
    """Return AR_RM-HP(t): the share of pairs that r and h order the same way.

    Arguments as in ``ar_rm_sc``.

    The paper's XNOR compares the order relations of r and of h. They agree where sign(r_w - r_l) =
    sign(h_w - h_l) and neither ties: two ties order nothing, and count as disagreement.

    Raises:
        ValueError: a score is NaN or infinite, there is no pair, or shapes do not fit.
    """
    scores = {
        "r_chosen": r_chosen, "r_rejected": r_rejected,
        "h_chosen": h_chosen, "h_rejected": h_rejected,
    }  # fmt: skip
    (r_c, r_r, h_c, h_r), differ = _arrays(scores, distinct)
    agrees = ((r_c > r_r) & (h_c > h_r)) | ((r_c < r_r) & (h_c < h_r))
    return _rates(agrees, differ, h_c != h_r, key, groups, level, samples)


def reward_gap(
    r_chosen: ArrayLike,
    r_rejected: ArrayLike,
    distinct: ArrayLike,
    *key: Key,
    groups: Groups | None = None,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
) -> PrefixRates:
    """Return the mean |r(x, y_w<t) - r(x, y_l<t)| (observation 4), in the reward model's own unit.

    Equal prefixes have gap 0, regardless of float error. Arguments as in ``ar_rm_sc``.

    Raises:
        ValueError: a reward is NaN or infinite, there is no pair, or shapes do not fit.
    """
    (r_c, r_r), differ = _arrays({"r_chosen": r_chosen, "r_rejected": r_rejected}, distinct)
    return _rates(np.abs(r_c - r_r), differ, None, key, groups, level, samples)


def compare_rates(
    first: PrefixRates,
    second: PrefixRates,
    *key: Key,
    pair_set: PairSet | None = None,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
) -> PairedTest | None:
    """Test two scorers over the same pairs: the difference of their means over the grid.

    ``pair_set`` None is ``comparison_set``. Returns None where that set is empty.

    Raises:
        ValueError: the two were not measured over the same pairs, lengths and judge.
    """
    pair_set = pair_set or first.comparison_set
    same = np.array_equal(first.groups, second.groups)
    if not same or not np.array_equal(first.counted[pair_set], second.counted[pair_set]):
        raise ValueError(f"the two scorers were not measured over the same {pair_set} prefix pairs")
    if not first.counted[pair_set].any():
        return None
    return paired_test(
        first.values, second.values, *key,
        groups=first.groups, counted=first.counted[pair_set], level=level, samples=samples,
    )  # fmt: skip


def _arrays(scores: Mapping[str, ArrayLike], distinct: ArrayLike) -> tuple[list[Floats], Bools]:
    """Return the scores as float64 and ``distinct`` as bool, all (N, G), N and G at least 1."""
    arrays = {name: as_finite_array(values, name) for name, values in scores.items()}
    differ = np.asarray(distinct, dtype=bool)
    shapes = {name: array.shape for name, array in arrays.items()} | {"distinct": differ.shape}
    if len(set(shapes.values())) != 1 or differ.ndim != 2:
        raise ValueError(f"scores and distinct need one shape (N, G), got {shapes}")
    if not differ.size:
        raise ValueError(f"no pair or no prefix length to measure: {shapes}")
    return list(arrays.values()), differ


def _rates(
    values: Floats | Bools,
    differ: Bools,
    h_decides: Bools | None,
    key: tuple[Key, ...],
    groups: Groups | None,
    level: float,
    samples: int,
) -> PrefixRates:
    owner = np.arange(len(values)) if groups is None else np.asarray(groups)
    measured = np.where(differ, values, 0.0).astype(np.float64)  # (N, G)
    counted: dict[PairSet, Bools] = {"strict": np.ones_like(differ), "distinct": differ}
    if h_decides is not None:
        counted["decided"] = differ & h_decides
    curves: dict[PairSet, Curve] = {}
    for pair_set, mask in counted.items():
        # One key for all sets: they share the resampled prompts, so their intervals are comparable.
        curves[pair_set] = Curve(
            *grid_intervals(measured, mask, *key, groups=owner, level=level, samples=samples)
        )
    return PrefixRates(
        curves["strict"], curves["distinct"], curves.get("decided"), measured, counted, owner
    )
