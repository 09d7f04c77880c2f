"""The scoring actor of jobs/score.py: what a worker of Ray Data's pool does with a part of a file.

A part comes and goes as one row, its table as Arrow bytes: Ray Data neither splits nor joins parts,
and one without rows is a part too.
"""

from typing import Any

import pyarrow as pa
import torch

from orchestrator.choices import Position
from orchestrator.scorers.registry import load_scorer
from orchestrator.scorers.row_reader import SIDES, RowKind
from orchestrator.scorers.scorer import RewardIsNotFinite, ScorerSpec
from orchestrator.search.engines import Ids

PROMPT, RESPONSE, CUTS = "_prompt_ids", "_{}ids", "{}cuts"  # columns; {} is a side's beginning
_SCORES = pa.list_(pa.float64())


class PrefixScorer:
    """A worker with one scorer.

    Args:
        spec: the scorer.
        position: where a prefix is scored.
        rows: what the rows hold.
        batch_size: responses that the scorer is asked for at once, of about the same length.
        device: torch device name.
        threads: torch threads.
        source: of the rows, for what errors name.
    """

    def __init__(
        self,
        spec: ScorerSpec,
        position: Position,
        rows: RowKind,
        batch_size: int,
        device: str,
        threads: int,
        source: str,
    ) -> None:
        torch.set_num_threads(threads)
        self._scorer = load_scorer(spec, position, None, device, whole_texts=True)
        self._rows, self._batch_size, self._source = rows, batch_size, source

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Adds prefix scores and the whole response's score; the token ids are left out.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite; the message has the file's rows.
        """
        table = from_bytes(part["table"])
        prompts = [tuple(ids) for ids in table[PROMPT].to_pylist()]
        names = [PROMPT]
        for side in SIDES[self._rows].values():
            responses = [tuple(ids) for ids in table[RESPONSE.format(side)].to_pylist()]
            cuts = table[CUTS.format(side)].to_pylist()
            try:
                found = self._scores(prompts, responses, cuts)
            except RewardIsNotFinite as error:
                numbers = [table["row"][i].as_py() for i in error.rows]
                raise RewardIsNotFinite(
                    f"{self._source}: rewards of rows {numbers[:20]} (of {len(numbers)} in part"
                    f" {part['part']}) are not finite"
                ) from None
            prefixes = pa.array([own[:-1] for own in found], _SCORES)
            wholes = pa.array([own[-1] for own in found], pa.float64())
            table = table.append_column(f"{side}prefix_scores", prefixes)
            table = table.append_column(f"{side}score", wholes)
            names.append(RESPONSE.format(side))
        return {**part, "table": to_bytes(table.drop_columns(names))}

    def _scores(
        self, prompts: list[Ids], responses: list[Ids], cuts: list[list[int]]
    ) -> list[list[float]]:
        """The scores at all cuts of each response, and behind them that of the whole."""
        found: list[list[float]] = [[] for _ in responses]
        order = sorted(range(len(responses)), key=lambda i: len(prompts[i]) + len(responses[i]))
        for start in range(0, len(order), self._batch_size):
            some = order[start : start + self._batch_size]
            # Cuts rise: where the last is the whole response it is not asked for twice.
            asked = [sorted({*cuts[i], len(responses[i])}) for i in some]
            try:
                scores = self._scorer.prefix_scores(
                    [prompts[i] for i in some], [responses[i] for i in some], asked
                )
            except RewardIsNotFinite as error:
                error.rows = tuple(some[i] for i in error.rows)
                raise
            for i, own in zip(some, scores, strict=True):
                found[i] = [*own[: len(cuts[i])], own[-1]]
        return found


def to_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(content: bytes) -> pa.Table:
    """The table of an Arrow stream."""
    return pa.ipc.open_stream(content).read_all()
