"""Compute prefix accuracy: how often the faultless one of two equally long prefixes scores higher.

Prefix accuracy is stricter than the agreement rates of appendix B. It counts only pairs of prefixes
in which exactly one has a fault, so it is known which one should score higher. The module does not
depend on how faults are detected (a rubric, a checker).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.evaluation.resampling import Bools, Floats, Groups, as_finite_array
from orchestrator.evaluation.statistics import BOOTSTRAP_SAMPLES, LEVEL, Interval, mean_interval
from orchestrator.randomness import Key

FaultSide = Literal["rejected", "either"]


@dataclass(frozen=True, eq=False)
class PrefixAccuracy:
    """The rate (None if there are no cases), and its C cases, for paired tests between scorers.

    ``correct`` (C,) float64 0 or 1, ``groups`` (C,) prompt ids, ``cases`` (C, 2) int64 the (pair,
    column of the grid) of each. The cases do not depend on the scorer.
    """

    rate: Interval | None
    correct: Floats
    groups: NDArray[np.generic]
    cases: NDArray[np.int64]


def both_reach(lengths_chosen: ArrayLike, lengths_rejected: ArrayLike, grid: ArrayLike) -> Bools:
    """Return whether both responses have at least t tokens, (N, G), for lengths (N,), grid (G,)."""
    shorter = np.minimum(np.asarray(lengths_chosen), np.asarray(lengths_rejected))
    return np.asarray(shorter[:, None] >= np.asarray(grid)[None, :])


def prefix_accuracy(
    r_chosen: ArrayLike,
    r_rejected: ArrayLike,
    fault_chosen: ArrayLike,
    fault_rejected: ArrayLike,
    reached: ArrayLike,
    *key: Key,
    groups: Groups | None = None,
    fault_in: FaultSide,
    level: float = LEVEL,
    samples: int = BOOTSTRAP_SAMPLES,
) -> PrefixAccuracy:
    """Return the share of cases in which the faultless prefix scores higher; a tie is wrong.

    All arrays (N, G): rewards and fault flags of both prefixes of N pairs at G lengths, and
    ``reached``, where both responses are at least t long (``both_reach``). ``fault_in`` defines a
    case: "rejected": only the rejected prefix has a fault; "either": exactly one of the two
    prefixes has one (with noisy labels the chosen response may be the faulty one). ``groups`` (N,)
    are prompt ids.

    Raises:
        ValueError: shapes differ, or a reward is NaN or infinite.
    """
    chosen = as_finite_array(r_chosen, "r_chosen")
    rejected = as_finite_array(r_rejected, "r_rejected")
    masks = [np.asarray(a, dtype=bool) for a in (fault_chosen, fault_rejected, reached)]
    shapes = [array.shape for array in (chosen, rejected, *masks)]
    if chosen.ndim != 2 or len(set(shapes)) != 1:
        raise ValueError(f"all arrays need one shape (N, G), got {shapes}")
    owners = np.asarray(np.arange(len(chosen)) if groups is None else groups)
    if len(owners) != len(chosen):
        raise ValueError(f"{len(owners)} group ids for {len(chosen)} pairs")
    only_rejected = masks[1] & ~masks[0] & masks[2]
    only_chosen = masks[0] & ~masks[1] & masks[2]
    is_case = only_rejected if fault_in == "rejected" else only_rejected | only_chosen
    right = np.where(only_rejected, chosen > rejected, rejected > chosen)
    cases = np.argwhere(is_case)  # (C, 2), row by row
    correct = right[is_case].astype(np.float64)
    owner = owners[cases[:, 0]]
    rate = None
    if len(correct):
        rate = mean_interval(correct, *key, groups=owner, level=level, samples=samples)
    return PrefixAccuracy(rate, correct, owner, cases)
