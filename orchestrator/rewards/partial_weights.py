"""Reference weights of partial pairs (section 4.2) as a column of their table."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.data.partial_pairs import SCHEMA
from orchestrator.rewards.weight_tally import WeightTally
from orchestrator.rewards.weights import reference_weights


def weigh(batch: pa.Table, maximum: float | None) -> pa.Table:
    """Add `weights` from the reference scores of both prefixes; columns of SCHEMA remain.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    weights = [
        reference_weights(np.subtract(chosen, rejected), maximum).tolist()
        for chosen, rejected in zip(
            batch["reference_chosen"].to_pylist(),
            batch["reference_rejected"].to_pylist(),
            strict=True,
        )
    ]
    column = pa.array(weights, type=SCHEMA.field("weights").type)
    kept = ["same_prefix", *(name for name in SCHEMA.names if name != "weights")]
    return batch.select(kept).append_column("weights", column)


def count_rows_of(tally: WeightTally, batch: pa.Table, truncation: str) -> int:
    """Count a truncation's weights in a batch; returns the number of its rows."""
    rows = batch.filter(pc.equal(batch["truncation"], truncation))
    weights = pc.list_flatten(rows["weights"].combine_chunks()).to_numpy()
    tally.add(weights, pc.sum(rows["same_prefix"]).as_py() or 0)
    return int(rows.num_rows)
