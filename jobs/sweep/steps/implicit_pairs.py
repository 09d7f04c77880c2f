"""Step 6a: training rows of implicit PRMs, with what the reference policy says of each response.

Computed once and kept, for all objectives: log pi_ref of both responses of a pair, and of a
response to another prompt for KTO's KL term.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from actors.backends import ActorPolicy
from jobs.sweep.backends import policy_of
from jobs.sweep.held_out import held_out_pairs
from jobs.sweep.sweep import Figures, Step, Sweep
from orchestrator.conversations.chat import Chat
from orchestrator.data.tables import count_rows, stream_pairs
from orchestrator.records import PreferencePair
from orchestrator.stages.progress import Meter
from orchestrator.training.examples import ImplicitExample, with_unrelated
from orchestrator.training.files import ExampleWriter

SPLITS = ("orm", "prm")  # the pairs that an ORM and the PRMs made of it are trained on
ROWS_PER_CALL = 512


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Writes examples.parquet, and held_out.parquet of the reference's pairs."""
    chat = sweep.chat("policy")
    files = [sweep.file("pairs", f"pairs_{split}.parquet") for split in SPLITS]
    total = sum(map(count_rows, files))
    meter.update(0, total)
    pairs = chain.from_iterable(map(stream_pairs, files))
    policy, unrelated = policy_of(sweep), step.options["unrelated"]
    with ExampleWriter(folder / "examples.parquet") as writer:
        for rows in _chunks(_rows(pairs, chat)):
            for row in _with_references(policy, rows, unrelated):
                writer.add(row)
            meter.advance(len(rows))
    _write_held_out(sweep, policy, chat, folder)
    return {"metrics": {"pairs": writer.rows}}


def _rows(pairs: Iterable[PreferencePair], chat: Chat) -> Iterator[ImplicitExample]:
    """Pairs as tokens; the references are still to be computed."""
    end = (chat.end_id,)
    for pair in pairs:
        prompt, *texts = chat.pair(pair.prompt.messages, pair.chosen, pair.rejected)
        responses = tuple(ids + end for ids in texts)
        yield ImplicitExample(prompt, responses, (True, False), ())


def _chunks(rows: Iterator[ImplicitExample]) -> Iterator[list[ImplicitExample]]:
    """Rows some hundred at a time; a small rest goes with the chunk before it."""
    held = list(islice(rows, ROWS_PER_CALL))
    while following := list(islice(rows, ROWS_PER_CALL)):
        if len(following) < ROWS_PER_CALL:
            held += following
            break
        yield held
        held = following
    yield held


def _with_references(
    policy: ActorPolicy, rows: list[ImplicitExample], unrelated: bool
) -> list[ImplicitExample]:
    """The rows with log pi_ref (nats) of what stands in them."""
    rows = with_unrelated(rows) if unrelated else rows
    texts = [
        (row.prompt_ids, response)
        for row in rows
        for response in (*row.responses, *([row.unrelated_ids] if unrelated else []))
    ]
    found = iter(asyncio.run(policy.log_probs(texts)))
    return [
        replace(
            row,
            references=tuple(next(found) for _ in row.responses),
            unrelated_reference=next(found) if unrelated else 0.0,
        )
        for row in rows
    ]


def _write_held_out(sweep: Sweep, policy: ActorPolicy, chat: Chat, folder: Path) -> None:
    if rows := list(_rows(held_out_pairs(sweep, "reference"), chat)):
        with ExampleWriter(folder / "held_out.parquet") as writer:
            for row in _with_references(policy, rows, unrelated=False):
                writer.add(row)
