"""Step 5: partial pairs by Ray Data (section 4.1.1), scored by reference actors (section 4.2).

One streaming pipeline: pairs -> cuts (TLT, SST) -> reference scores -> weights -> Parquet, in the
order of the pairs, so that a training that starts again sees the same batches.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, Dataset

from actors.reference import ReferenceScorer
from jobs.sweep.sweep import Figures, Step, Sweep
from jobs.sweep.weight_tally import Tally
from orchestrator.config.tree import Config
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.data.truncation import (
    Preset,
    mean_cuts,
    official_cuts,
    same_prefix,
    stochastic_cuts,
    token_level_cuts,
    word_cut_to_token_cuts,
)
from orchestrator.randomness import stream_key
from orchestrator.rewards.weights import reference_weights
from orchestrator.stages.progress import Meter

ROWS_PER_BATCH = 256
LENGTHS_SAMPLED = 256  # pairs whose lengths tell how many of them TLT needs
TLT_SPARE = 1.3  # TLT rows made per row needed; the training takes as many as it matches
_IDS = pa.list_(pa.int32())
_FLOATS = pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("truncation", pa.string()),
        ("prompt_ids", _IDS),
        ("chosen_ids", _IDS),
        ("rejected_ids", _IDS),
        ("chosen_cuts", _IDS),
        ("rejected_cuts", _IDS),
        ("reference_chosen", _FLOATS),
        ("reference_rejected", _FLOATS),
        ("weights", _FLOATS),
    ]
)


_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
CUT_SCHEMA = pa.schema(
    [field for field in SCHEMA if not field.name.startswith(("reference", "weights"))]
    + [
        pa.field("messages", _MESSAGES),
        pa.field("chosen", pa.string()),
        pa.field("rejected", pa.string()),
        pa.field("same_prefix", pa.int32()),
    ]
)


class CutPairs:
    """Cuts a batch of pairs: a row for each truncation asked for, prompt and responses as ids.

    ``truncations`` gives the share of the pairs that each takes; a pair's place is keyed by its id.
    """

    def __init__(
        self,
        prm: str,
        truncations: Mapping[str, float],
        preset: Preset,
        sst_k: int,
        seed: int,
        fold_system: bool = True,
    ) -> None:
        self._prm, self._truncations = prm, truncations
        self._preset, self._sst_k, self._seed = preset, sst_k, seed
        self._fold_system = fold_system

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of CUT_SCHEMA; `same_prefix` counts cuts dropped because both prefixes are equal."""
        chat = load_chat(self._prm, self._fold_system)
        rows = [
            self._cut(chat, pair, truncation)
            for pair in batch.to_pylist()
            for truncation, share in self._truncations.items()
            if stream_key(self._seed, "truncation", truncation, pair["pair_id"]) < share * 2**64
        ]
        return pa.Table.from_pylist(rows, schema=CUT_SCHEMA)

    def _cut(self, chat: Chat, pair: dict[str, Any], truncation: str) -> dict[str, Any]:
        prompt, chosen, rejected = chat.pair(pair["messages"], pair["chosen"], pair["rejected"])
        length = max(len(chosen), len(rejected))
        if truncation == "tlt":
            cuts = [(t, t) for t in token_level_cuts(length)]
        elif self._preset == "official":
            cuts = self._official(chat, pair)
        else:
            cuts = [
                (t, t) for t in stochastic_cuts(length, self._sst_k, self._seed, pair["pair_id"])
            ]
        kept = [(c, r) for c, r in cuts if not same_prefix(chosen, rejected, c, r)]
        return {
            **{name: pair[name] for name in ("pair_id", "messages", "chosen", "rejected")},
            "truncation": truncation,
            "prompt_ids": prompt,
            "chosen_ids": chosen,
            "rejected_ids": rejected,
            "chosen_cuts": [c for c, _ in kept],
            "rejected_cuts": [r for _, r in kept],
            "same_prefix": len(cuts) - len(kept),
        }

    def _official(self, chat: Chat, pair: dict[str, Any]) -> list[tuple[int, int]]:
        """The public code's cuts, in words, as the token counts of each response."""
        texts = pair["chosen"], pair["rejected"]
        words = official_cuts(max(len(text.split()) for text in texts), self._seed, pair["pair_id"])
        spans = [
            chat.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
                "offset_mapping"
            ]
            for text in texts
        ]
        first, second = (
            [word_cut_to_token_cuts(text, span, n) for n in words]
            for text, span in zip(texts, spans, strict=True)
        )
        return list(zip(first, second, strict=True))


def read_row_groups(batch: pa.Table, pairs_file: str) -> pa.Table:
    """The pairs of the batch's row groups, in order; the first step of the pipeline."""
    file = pq.ParquetFile(pairs_file)
    return pa.concat_tables([file.read_row_group(i) for i in batch["row_group"].to_pylist()])


def weigh(batch: pa.Table, maximum: float | None) -> pa.Table:
    """Adds `weights` from the reference scores (section 4.2); columns of SCHEMA remain."""
    weights = [
        reference_weights(np.subtract(chosen, rejected), maximum).tolist()
        for chosen, rejected in zip(
            batch["reference_chosen"].to_pylist(),
            batch["reference_rejected"].to_pylist(),
            strict=True,
        )
    ]
    column = pa.array(weights, type=_FLOATS)
    kept = ["same_prefix", *(name for name in SCHEMA.names if name != "weights")]
    return batch.select(kept).append_column("weights", column)


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Writes partial_pairs.parquet: a row for each pair and truncation, with lists of its cuts."""
    pairs_file = sweep.file("pairs", "pairs_prm.parquet")
    truncations = step.options["truncations"]
    pipeline = _pipeline(sweep, str(pairs_file), truncations)
    total = pq.read_metadata(pairs_file).num_rows
    tallies = {name: Tally(sweep.config.weight.max) for name in truncations}
    done = 0
    with pq.ParquetWriter(folder / "partial_pairs.parquet", SCHEMA) as writer:
        for batch in pipeline.iter_batches(batch_size=ROWS_PER_BATCH, batch_format="pyarrow"):
            for name, tally in tallies.items():
                tally.add(batch.filter(pc.equal(batch["truncation"], name)))
            writer.write_table(batch.select(SCHEMA.names).cast(SCHEMA))
            done += pc.sum(pc.equal(batch["truncation"], truncations[0])).as_py() or 0
            meter.update(done, total)
    metrics = {
        f"{name}_{key}": value for name, tally in tallies.items() for key, value in tally.metrics()
    }
    weights = [{"truncation": name, **tally.summary()} for name, tally in tallies.items()]
    return {"metrics": metrics, "weights": weights}


def _pipeline(sweep: Sweep, pairs_file: str, truncations: list[str]) -> Dataset:
    config, cpus = sweep.config, sweep.config.cluster.data_task_cpus
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the sweep shows its own progress
    prm = sweep.checkpoint("orm")
    cut = CutPairs(
        prm, _shares(config, prm, pairs_file, truncations), config.partial.preset,
        config.partial.sst_k, config.seed, config.chat.fold_system,
    )  # fmt: skip
    threads = sweep.threads(config.cluster.reference_actors)
    # read_parquet's own listing task asks for a whole CPU, which a small cluster with warm training
    # workers does not have: it would wait for ever. Row groups are read by a task of our own size.
    groups = [{"row_group": i} for i in range(pq.ParquetFile(pairs_file).num_row_groups)]
    return (
        ray.data.from_items(groups, override_num_blocks=len(groups))
        .map_batches(
            read_row_groups,
            fn_args=(pairs_file,),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=cpus,
        )
        .map_batches(cut, batch_format="pyarrow", batch_size=ROWS_PER_BATCH, num_cpus=cpus)
        .map_batches(
            ReferenceScorer,
            fn_constructor_args=(
                sweep.scorer("reference"), prm, config.scoring.position, sweep.device, threads,
            ),
            # More than there are blocks would have nothing to do, and Ray would say so.
            compute=ActorPoolStrategy(size=min(config.cluster.reference_actors, len(groups))),
            batch_format="pyarrow",
            batch_size=ROWS_PER_BATCH,
            num_cpus=config.cluster.actor_cpus,
            num_gpus=config.cluster.actor_gpus,
        )
        .map_batches(
            weigh,
            fn_args=(config.weight.max,),
            batch_format="pyarrow",
            num_cpus=cpus,
        )
    )  # fmt: skip


def truncations_of(config: Config) -> list[str]:
    """The truncations that some variant trains on, the one that takes all pairs first."""
    used = {v.truncation for v in config.variants.values() if v.takes_partial_pairs}
    return [name for name in ("sst", "tlt") if name in used]


def tlt_is_matched(config: Config) -> bool:
    """Whether every TLT variant takes at most as many partial pairs as an SST variant has."""
    variants = config.variants
    return all(
        v.match is not None and variants[v.match].truncation == "sst"
        for v in variants.values()
        if v.takes_partial_pairs and v.truncation == "tlt"
    )


def _shares(
    config: Config, prm: str, pairs_file: str, truncations: Sequence[str]
) -> dict[str, float]:
    """The share of the pairs that each truncation takes: all of them, but for a matched TLT.

    That one takes as many as give SST's number of partial pairs, and some to spare.
    """
    shares = dict.fromkeys(truncations, 1.0)
    if "tlt" in shares and tlt_is_matched(config):
        chat = load_chat(prm, config.chat.fold_system)
        head = next(pq.ParquetFile(pairs_file).iter_batches(LENGTHS_SAMPLED)).to_pylist()
        lengths = [
            max(len(chat.response_ids(row[side])) for side in ("chosen", "rejected"))
            for row in head
        ]
        drawn = mean_cuts(config.partial.preset, config.partial.sst_k)
        shares["tlt"] = min(1.0, TLT_SPARE * drawn / float(np.mean(lengths)))
    return shares
