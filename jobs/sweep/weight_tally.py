"""What is counted of the reference weights of partial pairs (section 4.2), batch by batch."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

HISTOGRAM_BINS = 40
HISTOGRAM_LARGEST = 1e4  # end of the axis without a cap: weights grow like exp(gap)


@dataclass
class Tally:
    """What became of one truncation's partial pairs, summed over batches.

    All figures are of the weights themselves; the histogram's last bin counts what is past its end.
    """

    cap: float | None
    partial_pairs: int = 0
    same_prefix: int = 0
    disagreed: int = 0
    capped: int = 0
    total_weight: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))

    @property
    def edges(self) -> np.ndarray:
        """Of the histogram of w: even up to the cap, else even in their logarithms."""
        if self.cap is not None:
            return np.linspace(0.0, self.cap, HISTOGRAM_BINS + 1)
        return np.geomspace(1.0, HISTOGRAM_LARGEST, HISTOGRAM_BINS + 1)

    @property
    def kept(self) -> int:
        """Partial pairs of a weight above 0."""
        return self.partial_pairs - self.disagreed

    def add(self, rows: pa.Table) -> None:
        """Counts a batch."""
        weights = np.array(pc.list_flatten(rows["weights"].combine_chunks()).to_numpy())
        self.same_prefix += pc.sum(rows["same_prefix"]).as_py() or 0
        self.partial_pairs += weights.size
        self.disagreed += int((weights == 0).sum())
        self.capped += int((weights == self.cap).sum())
        kept = weights[weights > 0]
        with np.errstate(over="ignore"):  # a sum past the largest float64 is infinite
            self.total_weight += float(kept.sum())
        self.counts += np.histogram(np.minimum(kept, self.edges[-1]), bins=self.edges)[0]

    def metrics(self) -> list[tuple[str, float]]:
        """Counts and the mean weight of what is kept, for MLflow.

        A mean past the largest float64 is no number that JSON or MLflow take, and is left out.
        """
        mean = self.total_weight / max(self.kept, 1)
        counts = [
            ("partial_pairs", self.partial_pairs),
            ("kept", self.kept),
            ("dropped_same_prefix", self.same_prefix),
            ("dropped_reference_disagrees", self.disagreed),
            ("capped", self.capped),
        ]
        return [*counts, *([("mean_weight", mean)] if math.isfinite(mean) else [])]

    def summary(self) -> dict[str, Any]:
        """Counts and the histogram of w for the report; what is past it stands in the last bin."""
        return {
            "partial_pairs": self.partial_pairs,
            "kept": self.kept,
            "dropped": {"same_prefix": self.same_prefix, "reference_disagrees": self.disagreed},
            "capped": self.capped,
            "histogram": {"edges": self.edges.tolist(), "counts": self.counts.tolist()},
        }
