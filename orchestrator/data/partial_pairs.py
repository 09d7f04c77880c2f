"""Partial pairs as Parquet rows (section 4.1.1): tokenized preference pairs, cut by TLT and SST."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.control_tokens import Ids
from orchestrator.data.truncation import (
    Preset,
    mean_cuts,
    official_cuts,
    same_prefix,
    stochastic_cuts,
    token_level_cuts,
    word_cut_to_token_cut,
)
from orchestrator.randomness import stream_key
from orchestrator.records import Message

LENGTHS_SAMPLED = 256  # first pairs of the file, whose mean length decides the share of TLT
TLT_SPARE = 1.3  # partial pairs that TLT makes for each one that is needed
_IDS = pa.list_(pa.int32())
_FLOATS = pa.list_(pa.float64())
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
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
CUT_SCHEMA = pa.schema(
    [field for field in SCHEMA if not field.name.startswith(("reference", "weights"))]
    + [
        pa.field("messages", _MESSAGES),
        pa.field("chosen", pa.string()),
        pa.field("rejected", pa.string()),
        pa.field("same_prefix", pa.int32()),
    ]
)


class _PairRow(TypedDict):
    """A preference pair as a row of its Parquet file."""

    pair_id: str
    messages: list[Message]
    chosen: str
    rejected: str


class CutPairs:
    """Cuts a batch of preference pairs into one row per pair and truncation.

    Args:
        tokenizer_checkpoint: folder or hub name of the model whose tokens are cut; only its
            tokenizer is used.
        shares: for each truncation, the share of the pairs that it takes; the pair id decides
            which pairs.
        preset: "paper" cuts SST as section 4.1.1, "official" as the public code.
        sst_k: mean number of cuts of the paper's SST.
        seed: seed of the run.
        fold_system: whether a template without a system role gets it in the first user message.
    """

    def __init__(
        self,
        tokenizer_checkpoint: str,
        shares: Mapping[str, float],
        preset: Preset,
        sst_k: int,
        seed: int,
        fold_system: bool = True,
    ) -> None:
        self._tokenizer_checkpoint, self._shares = tokenizer_checkpoint, shares
        self._preset, self._sst_k, self._seed = preset, sst_k, seed
        self._fold_system = fold_system

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return rows of CUT_SCHEMA.

        ``same_prefix`` counts the cuts that are dropped because both prefixes are equal.
        """
        chat = load_chat(self._tokenizer_checkpoint, self._fold_system)
        rows = [
            self._cut(chat, pair, truncation)
            for pair in batch.to_pylist()
            for truncation, share in self._shares.items()
            if stream_key(self._seed, "truncation", truncation, pair["pair_id"]) < share * 2**64
        ]
        return pa.Table.from_pylist(rows, schema=CUT_SCHEMA)

    def _cut(self, chat: Chat, pair: _PairRow, truncation: str) -> dict[str, object]:
        prompt, chosen, rejected = chat.pair(pair["messages"], pair["chosen"], pair["rejected"])
        length = max(len(chosen), len(rejected))
        if truncation == "tlt":
            cuts = [(t, t) for t in token_level_cuts(length)]
        elif self._preset == "official":
            cuts = self._official(chat, pair, chosen, rejected)
        else:
            cuts = [
                (t, t) for t in stochastic_cuts(length, self._sst_k, self._seed, pair["pair_id"])
            ]
        kept = [(c, r) for c, r in cuts if not same_prefix(chosen, rejected, c, r)]
        return {
            "pair_id": pair["pair_id"],
            "messages": pair["messages"],
            "chosen": pair["chosen"],
            "rejected": pair["rejected"],
            "truncation": truncation,
            "prompt_ids": prompt,
            "chosen_ids": chosen,
            "rejected_ids": rejected,
            "chosen_cuts": [c for c, _ in kept],
            "rejected_cuts": [r for _, r in kept],
            "same_prefix": len(cuts) - len(kept),
        }

    def _official(
        self, chat: Chat, pair: _PairRow, chosen: Ids, rejected: Ids
    ) -> list[tuple[int, int]]:
        """Return the public code's cuts, converted from words to tokens of each response."""
        texts = pair["chosen"], pair["rejected"]
        words = official_cuts(max(len(text.split()) for text in texts), self._seed, pair["pair_id"])
        cuts = []
        for text, ids in zip(texts, (chosen, rejected), strict=True):
            rendered, ends = chat.response_ends(pair["messages"], text)
            ends = ends[len(ends) - len(ids) :]  # without the prompt
            cuts.append([word_cut_to_token_cut(rendered, ends, n) for n in words])
        return list(zip(*cuts, strict=True))


def truncation_shares(
    truncations: Sequence[str],
    tlt_is_matched: bool,
    pairs_file: Path,
    chat: Chat,
    preset: Preset,
    sst_k: int,
) -> dict[str, float]:
    """Return the share of the pairs that each truncation takes.

    It is 1, except for TLT if every TLT variant matches the number of partial pairs of an SST
    variant: TLT then takes enough pairs for that number, and some to spare.
    """
    shares = dict.fromkeys(truncations, 1.0)
    if "tlt" in shares and tlt_is_matched:
        head = next(pq.ParquetFile(pairs_file).iter_batches(LENGTHS_SAMPLED)).to_pylist()
        lengths = [
            max(len(chat.response_ids(row[side])) for side in ("chosen", "rejected"))
            for row in head
        ]
        drawn = mean_cuts(preset, sst_k)
        shares["tlt"] = min(1.0, TLT_SPARE * drawn / float(np.mean(lengths)))
    return shares


def read_row_groups(batch: pa.Table, pairs_file: str) -> pa.Table:
    """Read the pairs of the row groups that the column ``row_group`` of a batch names, in order."""
    file = pq.ParquetFile(pairs_file)
    return pa.concat_tables([file.read_row_group(i) for i in batch["row_group"].to_pylist()])
