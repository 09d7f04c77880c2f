"""Compare the pipeline of jobs/score.py with the bare model: rows per second after warm-up.

The bare model is the same scorer in a separate process. It gets token ids, which are all known in
advance, in its best batch size, and has as many threads as all actors together. Rounds of the
pipeline alternate with samples of the bare model.
"""

import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import ray
import torch
from rich.console import Console

from actors.prefix_scores import ShardCounts
from jobs.batch.score_output import ScoreOutput
from jobs.batch.score_pipeline import ScoringPipelineConfig, run_shards
from jobs.benchmarks.measure import begin_peak, peak_mib
from jobs.benchmarks.names import PIPELINE
from jobs.benchmarks.setting import Setting, forward_flops
from jobs.sweep import cluster
from orchestrator.checkpoints.checkpoint import (
    new_policy,
    reward_model_from_policy,
    save_checkpoint,
)
from orchestrator.conversations.tokenizers import SPECIAL, word_tokenizer
from orchestrator.data.prefixes import Prefixes
from orchestrator.data.shards import InputShard, split_into_shards
from orchestrator.randomness import generator
from orchestrator.rewards.packed import prefix_row
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.row_reader import RowReader
from orchestrator.scorers.scorer import Scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import Ids

FLOOR = 0.85
PROMPT_TOKENS, RESPONSE_TOKENS, CUTS = 32, 64, (11, 22, 32, 43, 54)  # tokens
TEMPLATE_TOKENS = 3  # tokens of the template in a prompt
BATCH_SIZE = 32
SHARD_ROWS = 128  # at most; the ends of a round, which do not count, are whole shards
SHARDS_PER_ACTOR = 6  # at least, in a round
MOST_ACTORS = 8
ROUNDS = 3
ENDS = 0.05  # share of the shards at each end of a round that do not count
BARE_ROWS = 2_000
BARE_BATCHES = (8, 16, 32, 64, 128, 170)  # the largest batch of a scorer has 170 rows
TRIED_ROWS = 340
Row = tuple[Ids, Ids]


@dataclass
class Round:
    """One run of the pipeline: the time when each shard was written, and the driver's memory."""

    actors: int
    written: list[tuple[float, int]] = field(default_factory=list)  # seconds, rows
    peak_mib: float = 0.0  # rise of the driver's memory after a quarter of the shards

    @property
    def rate(self) -> float:
        """Rows per second, without the shards at both ends of the round."""
        # Equally fast actors finish together, so as many shards of each count.
        ends = math.ceil(ENDS * len(self.written) / self.actors) * self.actors
        count = (len(self.written) - 2 * ends) // self.actors * self.actors
        inner = self.written[ends - 1 : ends + count]
        if len(inner) < 2:
            raise ValueError(f"{len(self.written)} shards are too few to measure a rate")
        return sum(rows for _, rows in inner[1:]) / (inner[-1][0] - inner[0][0])


def pipeline_result(rows: int, setting: Setting, console: Console) -> dict[str, object]:
    """Return the result of rounds over ``rows`` rows in total, with the bare model in between."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = _checkpoint(setting, folder / "model")
        reader = _rows_file(rows, setting, checkpoint, folder)
        cluster.connect(console, dashboard=False)
        scoring, shards = _scoring(rows, setting, reader, folder)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            threads = scoring.actors * scoring.threads
            bare = partial(_bare, checkpoint, setting, threads, rows=min(BARE_ROWS, rows))
            best = max(BARE_BATCHES, key=lambda b: process.submit(
                partial(bare, rows=min(TRIED_ROWS, rows)), b).result())  # fmt: skip
            samples, rounds = [process.submit(bare, best).result()], []
            for number in range(ROUNDS):
                rounds.append(measure_round(scoring, shards[number::ROUNDS]))
                samples.append(process.submit(bare, best).result())
                console.print(
                    f"  pipeline {rounds[-1].rate:.1f} rows/s, bare {samples[-1]:.1f} (batches of"
                    f" {best})",
                    highlight=False,
                )
        ray.shutdown()
    return _result(rows, setting, rounds, samples)


def measure_round(scoring: ScoringPipelineConfig, shards: Sequence[InputShard]) -> Round:
    """Run the pipeline over some shards and return its measurements."""
    measured = Round(scoring.actors)
    before: float | None = None

    def on_shard(counts: ShardCounts) -> None:
        nonlocal before
        measured.written.append((time.perf_counter(), counts["rows"] + counts["rejected"]))
        if before is None and len(measured.written) >= len(shards) / 4:
            before = begin_peak()

    run_shards(scoring, shards, on_shard)
    measured.peak_mib = math.nan if before is None else peak_mib() - before
    return measured


def _result(
    rows: int, setting: Setting, rounds: Sequence[Round], samples: Sequence[float]
) -> dict[str, object]:
    around = [(a + b) / 2 for a, b in pairwise(samples)]
    pairs = list(zip(rounds, around, strict=True))
    ours = statistics.median(one.rate for one in rounds)
    ratio = statistics.median(one.rate / bare for one, bare in pairs)
    row = prefix_row((0,) * PROMPT_TOKENS, [(0,) * RESPONSE_TOKENS], [(*CUTS, RESPONSE_TOKENS)], ())
    return {
        "name": PIPELINE,
        "ours_s": rows / ours,
        "other_s": rows / ours * ratio,
        "ours_peak_mib": max(one.peak_mib for one in rounds),
        "other_peak_mib": None,  # the driver has no counterpart
        "ratio": ratio,
        "floor": FLOOR,
        "ceiling": None,
        "flops": ours * forward_flops(setting, [row]),
    }


def _scoring(
    rows: int, setting: Setting, reader: RowReader, folder: Path
) -> tuple[ScoringPipelineConfig, list[InputShard]]:
    """Return the scoring job and its shards: one actor per core, or one on a GPU."""
    actors = 1 if setting.device == "cuda" else min(os.cpu_count() or 1, MOST_ACTORS)
    shard_rows = max(min(SHARD_ROWS, rows // (ROUNDS * SHARDS_PER_ACTOR * actors)), 1)
    file = split_into_shards(str(folder / "rows.jsonl"), shard_rows, reader.check, folder)
    output = ScoreOutput(folder / "scored")
    output.begin({}, force=False)
    scoring = ScoringPipelineConfig(
        file, reader, str(output.path), actors, 1, BATCH_SIZE, setting.device
    )
    return scoring, list(file.shards)


def _checkpoint(setting: Setting, folder: Path) -> str:
    """Save a random reward model with a word tokenizer; return its folder."""
    words = _words(setting)
    tokenizer = word_tokenizer(words)
    save_checkpoint(new_policy(tokenizer, setting.architecture, 0), tokenizer, folder / "policy")
    model = reward_model_from_policy(str(folder / "policy"), 0)
    torch.nn.init.normal_(model.score.weight)
    save_checkpoint(model.to(setting.torch_dtype), tokenizer, folder / "reward")
    return str(folder / "reward")


def _words(setting: Setting) -> list[str]:
    return [f"w{number}" for number in range(setting.vocabulary - len(SPECIAL))]


def _rows_file(rows: int, setting: Setting, checkpoint: str, folder: Path) -> RowReader:
    """Write rows of random words, each one token; return their reader."""
    words, draw = _words(setting), generator(0, "bench", "pipeline")
    with (folder / "rows.jsonl").open("w") as file:
        for _ in range(rows):
            chosen = draw.integers(
                0, len(words), PROMPT_TOKENS - TEMPLATE_TOKENS + RESPONSE_TOKENS
            ).tolist()
            text = [words[i] for i in chosen]
            prompt, response = (
                text[: PROMPT_TOKENS - TEMPLATE_TOKENS],
                text[PROMPT_TOKENS - TEMPLATE_TOKENS :],
            )
            row = {"prompt": " ".join(prompt), "response": " ".join(response)}
            file.write(json.dumps(row) + "\n")
    prefixes = Prefixes("lengths", CUTS)
    return RowReader(ScorerSpec(checkpoint), "open", "response", prefixes, 0, "rows")


def _bare(checkpoint: str, setting: Setting, threads: int, batch: int, rows: int) -> float:
    """Return the rows per second of the scorer alone."""
    torch.set_num_threads(threads)
    scorer = _scorer(checkpoint, setting.device)
    rows_of_ids = _rows(rows, setting.vocabulary)
    start = time.perf_counter()
    for first in range(0, len(rows_of_ids), batch):
        chunk = rows_of_ids[first : first + batch]
        prompts, responses = [x for x, _ in chunk], [y for _, y in chunk]
        scorer.prefix_scores(prompts, responses, [[*CUTS, RESPONSE_TOKENS]] * len(chunk))
    return len(rows_of_ids) / (time.perf_counter() - start)


@lru_cache(maxsize=1)
def _scorer(checkpoint: str, device: str) -> Scorer:
    return load_scorer(ScorerSpec(checkpoint), "open", None, device)


@lru_cache(maxsize=2)
def _rows(rows: int, vocabulary: int) -> list[Row]:
    draw = generator(0, "bench", "bare")
    ids = draw.integers(len(SPECIAL), vocabulary, (rows, PROMPT_TOKENS + RESPONSE_TOKENS))
    return [(tuple(row[:PROMPT_TOKENS]), tuple(row[PROMPT_TOKENS:])) for row in ids.tolist()]
