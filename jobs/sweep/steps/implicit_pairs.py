"""The stage ``implicit_pairs``: make training rows for implicit PRMs, with log-probabilities.

They are computed once for all objectives, under the policy: log pi_ref of both responses of a pair,
and of a response to another prompt for KTO's KL term.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from actors.backends import ActorPolicy
from jobs.sweep.backends import Engines
from orchestrator.conversations.chat import Chat
from orchestrator.data.held_out import held_out_pairs
from orchestrator.data.tables import count_rows, stream_pairs
from orchestrator.objectives.examples import ImplicitExample, with_unrelated
from orchestrator.records import PreferencePair
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.training.files import ExampleWriter

SPLITS = ("orm", "prm")  # splits whose pairs train the ORM and the PRMs that start from it
ROWS_PER_CALL = 512


@dataclass(frozen=True)
class ImplicitPairsInputs:
    """Inputs of the step.

    Attributes:
        pairs: files of preference pairs, one after the other.
        held_out: files of pairs for evaluations; the first one with rows is used.
        max_held_out_pairs: largest number of pairs of that file.
        chat: chat format of the policy.
        engines: the policy in actors.
        needs_unrelated_response: whether a response to another prompt gets a log-probability too.
    """

    pairs: Sequence[Path]
    held_out: Sequence[Path]
    max_held_out_pairs: int
    chat: Chat
    engines: Engines
    needs_unrelated_response: bool


def run(inputs: ImplicitPairsInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Write examples.parquet, and held_out.parquet from the first non-empty held-out file."""
    progress.update(0, sum(map(count_rows, inputs.pairs)))
    pairs = chain.from_iterable(map(stream_pairs, inputs.pairs))
    policy = inputs.engines.policy()
    with ExampleWriter(folder / "examples.parquet") as writer:
        for rows in _chunks(_rows(pairs, inputs.chat)):
            for row in _with_reference_log_probs(policy, rows, inputs.needs_unrelated_response):
                writer.add(row)
            progress.advance(len(rows))
    held_out = held_out_pairs(inputs.held_out, inputs.max_held_out_pairs)
    _write_held_out(policy, list(_rows(held_out, inputs.chat)), folder)
    return {"metrics": {"pairs": writer.rows}}


def _rows(pairs: Iterable[PreferencePair], chat: Chat) -> Iterator[ImplicitExample]:
    """Return pairs as tokens, without reference log-probabilities."""
    end = (chat.end_id,)
    for pair in pairs:
        prompt, *token_ids = chat.pair(pair.prompt.messages, pair.chosen, pair.rejected)
        responses = tuple(ids + end for ids in token_ids)
        yield ImplicitExample(prompt, responses, (True, False), ())


def _chunks(rows: Iterator[ImplicitExample]) -> Iterator[list[ImplicitExample]]:
    """Yield chunks of ROWS_PER_CALL rows; a smaller last chunk is joined to the one before it."""
    chunk = list(islice(rows, ROWS_PER_CALL))
    while following := list(islice(rows, ROWS_PER_CALL)):
        if len(following) < ROWS_PER_CALL:
            chunk += following
            break
        yield chunk
        chunk = following
    yield chunk


def _with_reference_log_probs(
    policy: ActorPolicy, rows: list[ImplicitExample], needs_unrelated_response: bool
) -> list[ImplicitExample]:
    """Return the rows with log pi_ref (nats) of their responses."""
    rows = with_unrelated(rows) if needs_unrelated_response else rows
    sequences = [
        (row.prompt_ids, response)
        for row in rows
        for response in (*row.responses, *([row.unrelated_ids] if needs_unrelated_response else []))
    ]
    log_probs = iter(asyncio.run(policy.log_probs(sequences)))
    return [
        replace(
            row,
            reference_log_probs=tuple(next(log_probs) for _ in row.responses),
            unrelated_reference_log_prob=next(log_probs) if needs_unrelated_response else 0.0,
        )
        for row in rows
    ]


def _write_held_out(policy: ActorPolicy, rows: list[ImplicitExample], folder: Path) -> None:
    """Write held_out.parquet, if there are rows."""
    if rows:
        with ExampleWriter(folder / "held_out.parquet") as writer:
            for row in _with_reference_log_probs(policy, rows, needs_unrelated_response=False):
                writer.add(row)
