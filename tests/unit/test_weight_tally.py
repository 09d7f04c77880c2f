"""What is counted of the weights of partial pairs, batch by batch."""

import pyarrow as pa
import pytest

from jobs.sweep.weight_tally import HISTOGRAM_BINS, Tally


def batch(*weights: list[float]) -> pa.Table:
    return pa.table(
        {
            "weights": pa.array(list(weights), type=pa.list_(pa.float64())),
            "same_prefix": pa.array([1] * len(weights), type=pa.int32()),
        }
    )


def test_counts_are_those_of_all_batches_together() -> None:
    tally = Tally(cap=10.0)
    tally.add(batch([1.5, 0.0], [10.0]))
    tally.add(batch([2.5, 10.0, 0.0]))
    assert dict(tally.metrics()) == {
        "partial_pairs": 6,
        "kept": 4,
        "dropped_same_prefix": 3,
        "dropped_reference_disagrees": 2,
        "capped": 2,
        "mean_weight": pytest.approx(6.0),
    }
    histogram = tally.summary()["histogram"]
    assert len(histogram["edges"]) == HISTOGRAM_BINS + 1 and histogram["edges"][-1] == 10.0
    assert sum(histogram["counts"]) == 4 and histogram["counts"][-1] == 2


def test_uncapped_weights_past_the_histogram_stand_in_its_last_bin() -> None:
    tally = Tally(cap=None)
    tally.add(batch([1.5, 300.0, 1e9, float("inf")]))
    histogram = tally.summary()["histogram"]
    assert sum(histogram["counts"]) == 4 and histogram["counts"][-1] == 2


@pytest.mark.parametrize("cap", [None, 1e13])
def test_the_mean_weight_is_of_the_weights_themselves(cap: float | None) -> None:
    """Weights of 1e6 and 2 gave a mean of 5,001: they were cut at the histogram's end."""
    tally = Tally(cap)
    tally.add(batch([1e6, 2.0, 0.0]))
    assert dict(tally.metrics())["mean_weight"] == 500_001.0
    tally.add(batch([1e12]))
    assert dict(tally.metrics())["mean_weight"] == pytest.approx((1e12 + 1e6 + 2) / 3)
    assert sum(tally.summary()["histogram"]["counts"]) == tally.kept == 3


def test_a_mean_that_is_no_number_is_left_out() -> None:
    for weights in ([1.5, float("inf")], [1.7e308, 1.7e308]):
        tally = Tally(cap=None)
        tally.add(batch(weights))
        assert "mean_weight" not in dict(tally.metrics()) and tally.kept == 2
