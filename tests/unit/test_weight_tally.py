"""Reference weights of partial pairs: counted batch by batch, and added to their table."""

import pyarrow as pa
import pytest

from orchestrator.data.partial_pairs import SCHEMA
from orchestrator.rewards.partial_weights import count_rows_of, weigh
from orchestrator.rewards.weight_tally import HISTOGRAM_BINS, WeightTally
from orchestrator.rewards.weights import reference_weights


def test_counts_are_those_of_all_batches_together() -> None:
    tally = WeightTally(cap=10.0)
    tally.add([1.5, 0.0, 10.0], same_prefix=2)
    tally.add([2.5, 10.0, 0.0], same_prefix=1)
    assert tally.metrics() == {
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
    tally = WeightTally(cap=None)
    tally.add([1.5, 300.0, 1e9, float("inf")], same_prefix=0)
    histogram = tally.summary()["histogram"]
    assert sum(histogram["counts"]) == 4 and histogram["counts"][-1] == 2


@pytest.mark.parametrize("cap", [None, 1e13])
def test_the_mean_weight_is_of_the_weights_themselves(cap: float | None) -> None:
    """Weights of 1e6 and 2 gave a mean of 5,001: they were cut at the histogram's end."""
    tally = WeightTally(cap)
    tally.add([1e6, 2.0, 0.0], same_prefix=0)
    assert tally.metrics()["mean_weight"] == 500_001.0
    tally.add([1e12], same_prefix=0)
    assert tally.metrics()["mean_weight"] == pytest.approx((1e12 + 1e6 + 2) / 3)
    assert sum(tally.summary()["histogram"]["counts"]) == tally.kept == 3


def test_a_mean_that_is_no_number_is_left_out() -> None:
    for weights in ([1.5, float("inf")], [1.7e308, 1.7e308]):
        tally = WeightTally(cap=None)
        tally.add(weights, same_prefix=0)
        assert "mean_weight" not in tally.metrics() and tally.kept == 2


def test_a_batch_is_weighed_by_its_gaps_and_counted_by_truncation() -> None:
    gaps = {"sst": [2.0, -1.0], "tlt": [0.5]}
    rows: dict[str, list[list[int]]] = {
        name: [[]] * 2 for name in SCHEMA.names if name != "weights"
    }
    columns = {
        **rows,
        "pair_id": ["a", "b"],
        "truncation": list(gaps),
        "reference_chosen": list(gaps.values()),
        "reference_rejected": [[0.0] * len(own) for own in gaps.values()],
        "same_prefix": [3, 1],
    }
    fields = [field for field in SCHEMA if field.name != "weights"]
    schema = pa.schema([*fields, pa.field("same_prefix", pa.int32())])
    batch = weigh(pa.table(columns, schema=schema), maximum=None)
    assert batch["weights"].to_pylist() == [
        reference_weights(own).tolist() for own in gaps.values()
    ]
    tally = WeightTally(cap=None)
    assert count_rows_of(tally, batch, "sst") == 1
    assert (tally.partial_pairs, tally.disagreed, tally.same_prefix) == (2, 1, 3)
    assert count_rows_of(tally, batch.slice(0, 0), "sst") == 0 and tally.partial_pairs == 2
