"""The stage ``partial_pairs``: make partial pairs and reference scores (sections 4.1.1 and 4.2).

One streaming pipeline of Ray Data reads pairs, cuts them (TLT, SST), scores the prefixes with
reference actors, computes weights and writes Parquet. It keeps the order of the pairs, so that a
training that resumes sees the same batches.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, Dataset

from actors.reference import ReferenceScorer
from jobs.sweep.runtime.resources import Resources
from orchestrator.choices import Position
from orchestrator.config.tree import PartialConfig
from orchestrator.conversations.chat import load_chat
from orchestrator.data.partial_pairs import SCHEMA, CutPairs, read_row_groups, truncation_shares
from orchestrator.rewards.partial_weights import count_rows_of, weigh
from orchestrator.rewards.weight_tally import WeightTally
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult, WeightsEntry

ROWS_PER_BATCH = 256


@dataclass(frozen=True)
class MakePartialPairsInputs:
    """Inputs of the step.

    Attributes:
        pairs: file of the PRM's preference pairs.
        tokenizer_checkpoint: folder or hub name of the model whose tokens are cut; only its
            tokenizer is used.
        fold_system: whether a system message that its template does not render is prepended to the
            first user message.
        reference: the reference reward model.
        partial: how pairs are cut.
        truncations: the truncations to make; the first one uses all pairs.
        tlt_is_matched: whether TLT needs no more partial pairs than SST has.
        weight_max: the largest weight; None: uncapped.
        position: where a prefix is scored.
        seed: seed of the run.
        resources: shares of the cluster and threads.
    """

    pairs: Path
    tokenizer_checkpoint: str
    fold_system: bool
    reference: ScorerSpec
    partial: PartialConfig
    truncations: Sequence[str]
    tlt_is_matched: bool
    weight_max: float | None
    position: Position
    seed: int
    resources: Resources


def run(inputs: MakePartialPairsInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Write partial_pairs.parquet: a row for each pair and truncation, with lists of its cuts."""
    pipeline = _pipeline(inputs)
    total = pq.read_metadata(inputs.pairs).num_rows
    tallies = {name: WeightTally(inputs.weight_max) for name in inputs.truncations}
    done = 0
    with pq.ParquetWriter(folder / "partial_pairs.parquet", SCHEMA) as writer:
        for batch in pipeline.iter_batches(batch_size=ROWS_PER_BATCH, batch_format="pyarrow"):
            rows = [count_rows_of(tally, batch, name) for name, tally in tallies.items()]
            writer.write_table(batch.select(SCHEMA.names).cast(SCHEMA))
            done += rows[0]
            progress.update(done, total)
    metrics = {
        f"{name}_{key}": value
        for name, tally in tallies.items()
        for key, value in tally.metrics().items()
    }
    weights: list[WeightsEntry] = [
        {"truncation": name, **tally.summary()} for name, tally in tallies.items()
    ]
    return {"metrics": metrics, "weights": weights}


def _pipeline(inputs: MakePartialPairsInputs) -> Dataset:
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the sweep shows its own progress
    resources, file = inputs.resources, str(inputs.pairs)
    cluster, cpus = resources.cluster, resources.cluster.data_task_cpus
    # The listing task of read_parquet requests one CPU, which a small cluster with warm training
    # workers does not have, so it would wait forever. Row groups are read by a smaller task.
    groups = [{"row_group": i} for i in range(pq.ParquetFile(file).num_row_groups)]
    return (
        ray.data.from_items(groups, override_num_blocks=len(groups))
        .map_batches(
            read_row_groups, fn_args=(file,), batch_size=1, batch_format="pyarrow", num_cpus=cpus
        )
        .map_batches(
            _cutter(inputs), batch_format="pyarrow", batch_size=ROWS_PER_BATCH, num_cpus=cpus
        )
        .map_batches(
            ReferenceScorer,
            fn_constructor_args=(
                inputs.reference, inputs.tokenizer_checkpoint, inputs.position, resources.device,
                resources.threads(cluster.reference_actors),
            ),
            # More actors than blocks would be idle, and Ray would warn.
            compute=ActorPoolStrategy(size=min(cluster.reference_actors, len(groups))),
            batch_format="pyarrow",
            batch_size=ROWS_PER_BATCH,
            num_cpus=cluster.actor_cpus,
            num_gpus=cluster.actor_gpus,
        )
        .map_batches(weigh, fn_args=(inputs.weight_max,), batch_format="pyarrow", num_cpus=cpus)
    )  # fmt: skip


def _cutter(inputs: MakePartialPairsInputs) -> CutPairs:
    """Return the object that cuts the pairs into the truncations."""
    partial = inputs.partial
    shares = truncation_shares(
        inputs.truncations, inputs.tlt_is_matched, inputs.pairs,
        load_chat(inputs.tokenizer_checkpoint, inputs.fold_system), partial.preset, partial.sst_k,
    )  # fmt: skip
    return CutPairs(
        inputs.tokenizer_checkpoint,
        shares,
        partial.preset,
        partial.sst_k,
        inputs.seed,
        inputs.fold_system,
    )
