"""Reference weighting of partial pairs (section 4.2): w = 1/H where r_phi agrees, else 0.

With d = r_phi(x, y_w<t) - r_phi(x, y_l<t): p = sigma(|d|), H = -(p ln p + (1-p) ln(1-p)).
In float64, without torch.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

from orchestrator.randomness import Key, generator

Floats = NDArray[np.float64]
Kind = Literal["reference", "none", "mask", "entropy", "shuffled"]


def entropy(gaps: ArrayLike) -> Floats:
    """Return H of each reference gap d in nats, with the shape of ``gaps``.

    Computed from log-sigmoids: the difference 1 - p rounds to 0 for |d| > 37, where H, about
    |d| exp(-|d|), is still representable.
    """
    size = np.abs(np.asarray(gaps, dtype=np.float64))
    return np.asarray(-(expit(size) * log_expit(size) + expit(-size) * log_expit(-size)))


def reference_weights(gaps: ArrayLike, maximum: float | None = None) -> Floats:
    """Return w of each reference gap d: 1/H where d > 0, else 0; at most ``maximum`` (None: any).

    Ties (d = 0) count as disagreement, as in the paper's strict comparison. The smallest positive
    weight is 1/ln 2, about 1.44. Without a cap, an entropy below the smallest float64 gives
    infinity.

    Raises:
        ValueError: a gap is NaN or infinite.
    """
    weights = entropy_weights(gaps, maximum)
    return np.where(np.asarray(gaps) > 0, weights, 0.0)


def entropy_weights(gaps: ArrayLike, maximum: float | None = None) -> Floats:
    """Return 1/H of every gap, regardless of which prefix the reference prefers, as a control.

    Cap and errors are those of ``reference_weights``.
    """
    gaps = np.asarray(gaps, dtype=np.float64)
    if not np.isfinite(gaps).all():
        raise ValueError(
            f"reference gaps are not finite at {np.flatnonzero(~np.isfinite(gaps))[:20]}"
        )
    with np.errstate(divide="ignore"):
        weights = 1.0 / entropy(gaps)
    return weights if maximum is None else np.minimum(weights, maximum)


def weights_of(kind: Kind, gaps: ArrayLike, maximum: float | None, *key: Key) -> Floats:
    """Return the weights (N,) of all partial pairs of a training from their reference gaps (N,).

    "reference" is section 4.2, "none" its ablation (Eq. 2, w = 1). The controls separate the
    effects of the reference: "mask" only drops pairs (w = 1 where d > 0), "entropy" only weights
    them, "shuffled" permutes the positive weights by a random draw keyed with ``key``.
    """
    gaps = np.asarray(gaps, dtype=np.float64)
    if kind == "none":
        return np.ones(gaps.shape)
    if kind == "entropy":
        return entropy_weights(gaps, maximum)
    weights = reference_weights(gaps, maximum)
    positive = np.flatnonzero(weights)
    if kind == "mask":
        weights[positive] = 1.0
    elif kind == "shuffled":
        weights[positive] = weights[generator(*key, "shuffled").permutation(positive)]
    return weights


def normalized(weights: ArrayLike) -> Floats:
    """Return weights scaled to mean 1 over the positive ones.

    Raises:
        ValueError: their mean exceeds the largest float64.
    """
    weights = np.asarray(weights, dtype=np.float64)
    positive = weights[weights > 0]
    if not positive.size:
        return weights
    with np.errstate(over="ignore"):
        mean = positive.mean()
    if not np.isfinite(mean):
        raise ValueError(
            f"the mean of {positive.size} weights, the largest {positive.max():g}, is not finite;"
            " set weight.max, which caps them"
        )
    return np.asarray(weights / mean)
