"""The scoring actor of jobs/score.py: scores one shard of a file per call of Ray Data.

A shard is one row of Ray Data, its table serialized as Arrow bytes. So Ray Data neither splits nor
joins shards, and a shard may have no rows.
"""

from typing import TypedDict

import pyarrow as pa
import torch

from orchestrator.choices import Position
from orchestrator.data.row_forms import RowForm
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.row_reader import SIDES
from orchestrator.scorers.scorer import RewardIsNotFinite
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import Ids

PROMPT, RESPONSE, CUTS = "_prompt_ids", "_{}ids", "{}cuts"  # columns; {} is the prefix of a side
_SCORES = pa.list_(pa.float64())


class ShardCounts(TypedDict):
    """What is counted of a shard: its index, scored rows, rejects, and tokens of scored rows."""

    shard: int
    rows: int
    rejected: int
    tokens: int


class Shard(ShardCounts):
    """A shard between the workers of Ray Data: its rows and its rejects as Arrow streams."""

    table: bytes
    rejects: bytes


class PrefixScorer:
    """A worker of Ray Data with one scorer.

    Args:
        spec: the scorer.
        position: where a prefix is scored.
        row_form: form of the rows.
        batch_size: responses in one call of the scorer, of similar length.
        device: torch device name.
        threads: torch threads.
        source: the file of the rows, for errors.
    """

    def __init__(
        self,
        spec: ScorerSpec,
        position: Position,
        row_form: RowForm,
        batch_size: int,
        device: str,
        threads: int,
        source: str,
    ) -> None:
        torch.set_num_threads(threads)
        self._scorer = load_scorer(spec, position, None, device, full_responses=True)
        self._row_form, self._batch_size, self._source = row_form, batch_size, source

    def __call__(self, shard: Shard) -> Shard:
        """Add the scores of all prefixes and of the complete response; drop the token ids.

        Raises:
            RewardIsNotFinite: a score is NaN or infinite; the message names the rows of the file.
        """
        table = from_bytes(shard["table"])
        prompts = [tuple(ids) for ids in table[PROMPT].to_pylist()]
        names = [PROMPT]
        for side in SIDES[self._row_form].values():
            responses = [tuple(ids) for ids in table[RESPONSE.format(side)].to_pylist()]
            cuts = table[CUTS.format(side)].to_pylist()
            try:
                scores = self._scores(prompts, responses, cuts)
            except RewardIsNotFinite as error:
                numbers = [table["row"][i].as_py() for i in error.rows]
                raise RewardIsNotFinite(
                    f"{self._source}: rewards of {len(numbers)} rows in shard {shard['shard']} are"
                    f" not finite: rows {numbers[:20]}"
                ) from None
            of_prefixes = pa.array([row[:-1] for row in scores], _SCORES)
            of_responses = pa.array([row[-1] for row in scores], pa.float64())
            table = table.append_column(f"{side}prefix_scores", of_prefixes)
            table = table.append_column(f"{side}score", of_responses)
            names.append(RESPONSE.format(side))
        return {**shard, "table": to_bytes(table.drop_columns(names))}

    def _scores(
        self, prompts: list[Ids], responses: list[Ids], cuts: list[list[int]]
    ) -> list[list[float]]:
        """Return the scores of each response at its cuts, followed by that of the response."""
        results: list[list[float]] = [[] for _ in responses]
        order = sorted(range(len(responses)), key=lambda i: len(prompts[i]) + len(responses[i]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            # Cuts ascend; the last one may be the complete response, which is scored once.
            lengths = [sorted({*cuts[i], len(responses[i])}) for i in batch]
            try:
                scores = self._scorer.prefix_scores(
                    [prompts[i] for i in batch], [responses[i] for i in batch], lengths
                )
            except RewardIsNotFinite as error:
                error.rows = tuple(batch[i] for i in error.rows)
                raise
            for i, row in zip(batch, scores, strict=True):
                results[i] = [*row[: len(cuts[i])], row[-1]]
        return results


def to_bytes(table: pa.Table) -> bytes:
    """Serialize a table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(content: bytes) -> pa.Table:
    """Read the table of an Arrow stream."""
    return pa.ipc.open_stream(content).read_all()
