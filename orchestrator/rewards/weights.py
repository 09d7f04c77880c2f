"""Reference weighting of partial pairs (section 4.2): w = 1/H where r_phi agrees, else 0.

With d = r_phi(x, y_w<t) - r_phi(x, y_l<t): p = sigma(|d|), H = -(p ln p + (1-p) ln(1-p)).
Pure NumPy in float64.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

from orchestrator.randomness import Key, generator

Floats = NDArray[np.float64]
Kind = Literal["reference", "none", "mask", "entropy", "shuffled"]


def entropy(gaps: ArrayLike) -> Floats:
    """H of each reference gap d, in nats, same shape as ``gaps``.

    From log-sigmoids, since 1-p vanishes in floating point long before H does: H falls like
    |d| exp(-|d|).
    """
    size = np.abs(np.asarray(gaps, dtype=np.float64))
    return np.asarray(-(expit(size) * log_expit(size) + expit(-size) * log_expit(-size)))


def reference_weights(gaps: ArrayLike, maximum: float | None = None) -> Floats:
    """W of each reference gap d: 1/H where d > 0, else 0; at most ``maximum`` (None: uncapped).

    Ties (d = 0) count as disagreement, as the paper's strict comparison has it. The smallest
    positive weight is 1/ln 2, about 1.44. Uncapped, an entropy under the smallest float64 gives
    infinity.

    Raises:
        ValueError: a gap is NaN or infinite.
    """
    weights = entropy_weights(gaps, maximum)
    return np.where(np.asarray(gaps) > 0, weights, 0.0)


def entropy_weights(gaps: ArrayLike, maximum: float | None = None) -> Floats:
    """A control: 1/H of every gap, whomever the reference prefers; else as the above."""
    gaps = np.asarray(gaps, dtype=np.float64)
    if not np.isfinite(gaps).all():
        raise ValueError(
            f"reference gaps are not finite at {np.flatnonzero(~np.isfinite(gaps))[:20]}"
        )
    with np.errstate(divide="ignore"):
        weights = 1.0 / entropy(gaps)
    return weights if maximum is None else np.minimum(weights, maximum)


def weights_of(kind: Kind, gaps: ArrayLike, maximum: float | None, *key: Key) -> Floats:
    """The weights of all partial pairs of a training (N,) by their reference gaps (N,).

    "reference" is section 4.2, "none" its ablation (Eq. 2, w = 1). The controls tell what of the
    reference does the work: "mask" only drops pairs (w = 1 where d > 0), "entropy" only weighs
    them, "shuffled" gives the weights of the kept pairs to others of them, drawn by ``key``.
    """
    gaps = np.asarray(gaps, dtype=np.float64)
    if kind == "none":
        return np.ones(gaps.shape)
    if kind == "entropy":
        return entropy_weights(gaps, maximum)
    weights = reference_weights(gaps, maximum)
    kept = np.flatnonzero(weights)
    if kind == "mask":
        weights[kept] = 1.0
    elif kind == "shuffled":
        weights[kept] = weights[generator(*key, "shuffled").permutation(kept)]
    return weights


def normalized(weights: ArrayLike) -> Floats:
    """Weights scaled to mean 1 over the pairs that are kept (w > 0).

    Raises:
        ValueError: their mean is past the largest float64.
    """
    weights = np.asarray(weights, dtype=np.float64)
    kept = weights[weights > 0]
    if not kept.size:
        return weights
    with np.errstate(over="ignore"):
        mean = kept.mean()
    if not np.isfinite(mean):
        raise ValueError(
            f"the mean of {kept.size} weights, the largest of them {kept.max():g}, is not finite;"
            " give weight.max, which caps them"
        )
    return np.asarray(weights / mean)
