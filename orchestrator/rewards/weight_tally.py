"""Counts of the reference weights of partial pairs (section 4.2), batch by batch. Pure NumPy."""

import math
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.rewards.weights import Floats

HISTOGRAM_BINS = 40
HISTOGRAM_LARGEST = 1e4  # end of the axis without a cap: weights grow like exp(gap)


class Dropped(TypedDict):
    """Why partial pairs are dropped, with their numbers."""

    same_prefix: int
    reference_disagrees: int


class Histogram(TypedDict):
    """Counts of the weights above 0 between B + 1 edges; the last bin holds all past its end."""

    edges: list[float]
    counts: list[int]


class WeightSummary(TypedDict):
    """Counts and histogram of the weights of one truncation, as in summary.json."""

    partial_pairs: int
    kept: int
    dropped: Dropped
    capped: int
    histogram: Histogram


@dataclass
class WeightTally:
    """Counts of one truncation's partial pairs, summed over batches.

    All counts are of the weights themselves. The last bin of the histogram counts what is past its
    end.

    Attributes:
        cap: the largest weight; None: uncapped.
        partial_pairs: whose prefixes differ.
        same_prefix: cuts that were dropped because both prefixes are equal.
        disagreed: partial pairs of weight 0.
        capped: partial pairs whose weight is the cap.
        total_weight: sum of the weights.
        counts: (B,) of the histogram.
    """

    cap: float | None
    partial_pairs: int = 0
    same_prefix: int = 0
    disagreed: int = 0
    capped: int = 0
    total_weight: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))

    @property
    def edges(self) -> Floats:
        """The B + 1 edges of the histogram: even up to the cap, else even in their logarithms."""
        if self.cap is not None:
            return np.linspace(0.0, self.cap, HISTOGRAM_BINS + 1)
        return np.geomspace(1.0, HISTOGRAM_LARGEST, HISTOGRAM_BINS + 1)

    @property
    def kept(self) -> int:
        """Number of partial pairs with a weight above 0."""
        return self.partial_pairs - self.disagreed

    def add(self, weights: ArrayLike, same_prefix: int) -> None:
        """Count a batch: weights (N,) of its partial pairs, and its cuts with equal prefixes."""
        values = np.asarray(weights, np.float64)
        self.same_prefix += same_prefix
        self.partial_pairs += values.size
        self.disagreed += int((values == 0).sum())
        self.capped += int((values == self.cap).sum())
        kept = values[values > 0]
        with np.errstate(over="ignore"):  # a sum past the largest float64 is infinite
            self.total_weight += float(kept.sum())
        self.counts += np.histogram(np.minimum(kept, self.edges[-1]), bins=self.edges)[0]

    def metrics(self) -> dict[str, float]:
        """Return the counts and the mean weight of the kept partial pairs, for MLflow.

        A mean past the largest float64 is left out: JSON and MLflow do not take it.
        """
        mean = self.total_weight / max(self.kept, 1)
        counts: dict[str, float] = {
            "partial_pairs": self.partial_pairs,
            "kept": self.kept,
            "dropped_same_prefix": self.same_prefix,
            "dropped_reference_disagrees": self.disagreed,
            "capped": self.capped,
        }
        return counts | ({"mean_weight": mean} if math.isfinite(mean) else {})

    def summary(self) -> WeightSummary:
        """Return the counts and the histogram of the weights for the report."""
        return {
            "partial_pairs": self.partial_pairs,
            "kept": self.kept,
            "dropped": {"same_prefix": self.same_prefix, "reference_disagrees": self.disagreed},
            "capped": self.capped,
            "histogram": {"edges": self.edges.tolist(), "counts": self.counts.tolist()},
        }
