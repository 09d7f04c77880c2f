"""Steps 4 and 6: the ORM and the reference (Eq. 1), the process reward models (Eq. 2, Eq. 3)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from jobs.sweep.held_out import held_out_pairs
from jobs.sweep.sweep import Figures, Step, Sweep
from jobs.sweep.training import train
from orchestrator.config.sections import Variant
from orchestrator.conversations.chat import Chat
from orchestrator.data.tables import stream_pairs
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.records import PreferencePair
from orchestrator.rewards.weights import Kind, normalized, weights_of
from orchestrator.stages.progress import Meter
from orchestrator.training.examples import PairExample
from orchestrator.training.files import write_examples

_PER_PARTIAL_PAIR = ("chosen_cuts", "rejected_cuts", "weights")
ROWS_AT_ONCE = 512


def run_outcome(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Trains the ORM or the reference on whole responses, from the policy's weights."""
    name = step.stage.name
    start = sweep.checkpoint("policy")
    chat = sweep.chat("policy")
    pairs = stream_pairs(sweep.file("pairs", f"pairs_{name}.parquet"))
    write_examples(folder / "examples.parquet", (whole_pair(pair, chat) for pair in pairs))
    _write_held_out(sweep, "orm" if name == "reference" else "reference", chat, folder)
    optimization = getattr(sweep.config.training, name)
    return train(
        sweep, step, BradleyTerry.name, "policy_to_reward", start, optimization, folder, meter
    )


def run_variant(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Trains one process reward model from the ORM, or a control, or an implicit PRM."""
    variant = sweep.config.variants[step.options["variant"]]
    if variant.is_trained_from_policy:
        return _run_implicit(sweep, step, variant, folder, meter)
    start, steps = sweep.checkpoint("orm"), None
    chat = sweep.chat("orm")
    examples: Iterator[PairExample]
    if variant.truncation == "whole":
        pairs = stream_pairs(sweep.file("pairs", "pairs_prm.parquet"))
        examples = (whole_pair(pair, chat) for pair in pairs)
        steps = int(_figures(sweep, f"variants/{variant.match}")["steps"])
    else:
        examples = _partial_pairs(sweep, variant.truncation, variant.weight)
        if variant.match is not None:
            most = int(_figures(sweep, f"variants/{variant.match}")["partial_pairs"])
            examples = _first_partial_pairs(examples, most)
    write_examples(folder / "examples.parquet", examples)
    _write_held_out(sweep, "reference", chat, folder)
    optimization = sweep.config.training.prm
    if variant.truncation == "whole":
        # As many steps as the variant it controls for; a step of the ORM's own size.
        batch = sweep.config.training.orm.batch_size
        optimization = optimization.model_copy(update={"batch_size": batch})
    return train(
        sweep, step, variant.objective, "reward", start, optimization, folder, meter, steps,
        beta=variant.beta, reading=sweep.config.models.reading("orm"),
    )  # fmt: skip


def _run_implicit(
    sweep: Sweep, step: Step, variant: Variant, folder: Path, meter: Meter
) -> Figures:
    """Trains an implicit PRM from the policy, on labels of whole responses."""
    rows = sweep.file("implicit_pairs", "examples.parquet")
    held_out = rows.with_name("held_out.parquet")
    return train(
        sweep,
        step,
        variant.objective,
        "policy",
        sweep.checkpoint("policy"),
        sweep.config.training.implicit,
        folder,
        meter,
        examples=rows,
        held_out=held_out if held_out.is_file() else None,
        beta=variant.beta,
    )


def whole_pair(pair: PreferencePair, chat: Chat, grid: Sequence[int] = ()) -> PairExample:
    """A row of Eq. 1: a cut at the whole length, weight 1; held-out rows have a grid before it."""
    prompt, chosen, rejected = chat.pair(pair.prompt.messages, pair.chosen, pair.rejected)
    cuts = (*grid, max(len(chosen), len(rejected)))
    return PairExample(prompt, chosen, rejected, cuts, cuts, (1.0,) * len(cuts))


def _write_held_out(sweep: Sweep, split: str, chat: Chat, folder: Path) -> None:
    """Pairs on whose prompts the model is not trained: of another model's ``split``."""
    grid = sweep.config.evaluation.agreement_grid
    rows = [whole_pair(pair, chat, grid) for pair in held_out_pairs(sweep, split)]
    if rows:
        write_examples(folder / "held_out.parquet", rows)


def _partial_pairs(sweep: Sweep, truncation: str, weight: Kind) -> Iterator[PairExample]:
    """Rows of one truncation with their weights; partial pairs of weight 0 are left out."""
    file = pq.ParquetFile(sweep.file("partial_pairs", "partial_pairs.parquet"))
    weights = _weights(sweep, file, truncation, weight)
    start = 0
    for row in _rows(file, truncation):
        values = weights[start : start + len(row["weights"])]
        start += len(values)
        kept = [i for i, w in enumerate(values) if w > 0]
        if kept:
            chosen_cuts, rejected_cuts = (
                tuple(row[name][i] for i in kept) for name in ("chosen_cuts", "rejected_cuts")
            )
            yield PairExample(
                tuple(row["prompt_ids"]),
                tuple(row["chosen_ids"]),
                tuple(row["rejected_ids"]),
                chosen_cuts,
                rejected_cuts,
                tuple(float(values[i]) for i in kept),
            )


def _weights(sweep: Sweep, file: pq.ParquetFile, truncation: str, kind: Kind) -> np.ndarray:
    """The weights of all partial pairs of a truncation (N,): some kinds need all gaps at once."""
    gaps = [
        np.subtract(row["reference_chosen"], row["reference_rejected"])
        for row in _rows(file, truncation, ["reference_chosen", "reference_rejected"])
    ]
    config = sweep.config
    together = np.concatenate([np.zeros(0), *gaps])
    weights = weights_of(kind, together, config.weight.max, config.seed, truncation)
    return normalized(weights) if config.weight.normalize else weights


def _rows(
    file: pq.ParquetFile, truncation: str, columns: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a truncation, some hundred in memory at a time."""
    named = None if columns is None else ["truncation", *columns]
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=named):
        yield from (row for row in batch.to_pylist() if row["truncation"] == truncation)


def _first_partial_pairs(rows: Iterable[PairExample], most: int) -> Iterator[PairExample]:
    """The first rows that hold ``most`` partial pairs, the last one cut to fit."""
    for row in rows:
        if most <= 0:
            return
        parts = {name: getattr(row, name)[:most] for name in _PER_PARTIAL_PAIR}
        yield replace(row, **parts)
        most -= row.size


def _figures(sweep: Sweep, stage: str) -> dict[str, Any]:
    return dict(sweep.store.marker(sweep.stages[stage])["figures"]["metrics"])
