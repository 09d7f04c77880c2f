"""Steps 4 and 6: the ORM and the reference (Eq. 1), the process reward models (Eq. 2, Eq. 3)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from jobs.steps.sweep import Figures, Step, Sweep
from jobs.steps.training import train
from orchestrator.data.tables import read_pairs_table
from orchestrator.engines.chat import Chat, load_chat
from orchestrator.records import PreferencePair
from orchestrator.rewards.weights import Kind, normalized, weights_of
from orchestrator.stages.progress import Meter
from orchestrator.training.examples import PairExample
from orchestrator.training.files import write_examples

_PER_PARTIAL_PAIR = ("chosen_cuts", "rejected_cuts", "weights")


def run_outcome(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Trains the ORM or the reference on whole responses, from the policy's weights."""
    name = step.stage.name
    pairs = read_pairs_table(sweep.file("pairs", f"pairs_{name}.parquet"))
    start = sweep.checkpoint("policy")
    write_examples(folder / "examples.parquet", whole_pairs(pairs, load_chat(start)))
    optimization = getattr(sweep.config.training, name)
    return train(sweep, "bradley_terry", "policy_to_reward", start, optimization, folder, meter)


def run_variant(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Trains one process reward model, or the ORM for as many steps, from the ORM."""
    variant = sweep.config.variants[step.options["variant"]]
    start, steps = sweep.checkpoint("orm"), None
    if variant.truncation == "whole":
        pairs = read_pairs_table(sweep.file("pairs", "pairs_prm.parquet"))
        examples = whole_pairs(pairs, load_chat(start))
        steps = int(_figures(sweep, f"variants/{variant.match}")["steps"])
    else:
        examples = list(_partial_pairs(sweep, variant.truncation, variant.weight))
        if variant.match is not None:
            most = int(_figures(sweep, f"variants/{variant.match}")["partial_pairs"])
            examples = _first_partial_pairs(examples, most)
    write_examples(folder / "examples.parquet", examples)
    optimization = sweep.config.training.prm
    if variant.truncation == "whole":
        # As many steps as the variant it controls for; a step of the ORM's own size.
        batch = sweep.config.training.orm.batch_size
        optimization = optimization.model_copy(update={"batch_size": batch})
    return train(sweep, "bradley_terry", "reward", start, optimization, folder, meter, steps)


def whole_pairs(pairs: list[PreferencePair], chat: Chat) -> list[PairExample]:
    """Training rows of Eq. 1: one cut at the whole length, weight 1."""
    rows = []
    for pair in pairs:
        chosen, rejected = chat.response_ids(pair.chosen), chat.response_ids(pair.rejected)
        length = max(len(chosen), len(rejected))
        prompt = chat.prompt_ids(pair.prompt.messages)
        rows.append(PairExample(prompt, chosen, rejected, (length,), (length,), (1.0,)))
    return rows


def _partial_pairs(sweep: Sweep, truncation: str, weight: Kind) -> Iterator[PairExample]:
    """Rows of one truncation with their weights; partial pairs of weight 0 are left out."""
    table = pq.read_table(sweep.file("partial_pairs", "partial_pairs.parquet"))
    rows = [row for row in table.to_pylist() if row["truncation"] == truncation]
    sides = (
        np.array([score for row in rows for score in row[f"reference_{side}"]], dtype=np.float64)
        for side in ("chosen", "rejected")
    )
    gaps = np.subtract(*sides)
    weights = weights_of(weight, gaps, sweep.config.weight.max, sweep.config.seed, truncation)
    if sweep.config.weight.normalize:
        weights = normalized(weights)
    borders = np.cumsum([len(row["weights"]) for row in rows])[:-1]
    for row, values in zip(rows, np.split(weights, borders), strict=True):
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


def _first_partial_pairs(rows: list[PairExample], most: int) -> list[PairExample]:
    """The first rows that hold ``most`` partial pairs, the last one cut to fit."""
    kept: list[PairExample] = []
    for row in rows:
        if most <= 0:
            break
        parts = {name: getattr(row, name)[:most] for name in _PER_PARTIAL_PAIR}
        kept.append(replace(row, **parts))
        most -= row.size
    return kept


def _figures(sweep: Sweep, stage: str) -> dict[str, Any]:
    return dict(sweep.store.marker(sweep.stages[stage])["figures"]["metrics"])
