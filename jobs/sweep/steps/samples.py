"""The stages ``samples`` and ``calibration``: draw shared samples, and calibrate thresholds."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.sweep.backends import Engines
from jobs.sweep.length_limits import TestPrompts
from orchestrator.choices import Dtype
from orchestrator.conversations.chat import Chat
from orchestrator.data.tables import read_pairs_table
from orchestrator.randomness import stream_key
from orchestrator.records import Prompt
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.engines import SampleRequest
from orchestrator.search.methods.best_of_n import BestOfN, SamplesState
from orchestrator.search.problem import Problem
from orchestrator.search.runner import run_searches
from orchestrator.search.sample_files import write_samples
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult

SAMPLES, ENTROPIES = "samples.parquet", "entropies.parquet"
CALIBRATION_PROMPTS = 128  # the PRM's prompts whose responses give the quantiles for thresholds


@dataclass(frozen=True)
class SearchInputs:
    """Inputs that all searches of a run share.

    Attributes:
        engines: policy and scorers in actors.
        chat: chat format of the policy.
        seed: seed of the run.
        max_new_tokens: length limit of a response.
        max_concurrent: prompts that are searched at once.
        dtype: dtype of the models' weights.
    """

    engines: Engines
    chat: Chat
    seed: int
    max_new_tokens: int
    max_concurrent: int
    dtype: Dtype

    def problems(self, prompts: Sequence[Prompt]) -> list[Problem]:
        """Return the prompts in the policy's token ids."""
        return [
            Problem(
                prompt.prompt_id, self.chat.prompt_ids(prompt.messages), self.seed,
                self.max_new_tokens,
            )
            for prompt in prompts
        ]  # fmt: skip


@dataclass(frozen=True)
class SamplesInputs:
    """Inputs of the shared samples; ``n`` is their number per prompt."""

    search: SearchInputs
    prompts: TestPrompts
    n: int


@dataclass(frozen=True)
class CalibrationInputs:
    """Inputs of the calibration; ``pairs`` is the file of the PRM's preference pairs."""

    search: SearchInputs
    pairs: Path


def run_samples(inputs: SamplesInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Draw the N samples of best-of-N, once for all scorers."""
    search = inputs.search
    problems = search.problems(inputs.prompts.fitting())
    states: list[SamplesState] = asyncio.run(
        run_searches(
            problems,
            BestOfN(n=inputs.n).initial,
            BatchBackend(search.engines.policy(search.dtype)),
            max_concurrent=search.max_concurrent,
            batchers=1,
            on_outcome=counter(progress, len(problems)),
        )
    )
    write_samples(folder / SAMPLES, problems, states)
    lengths = [len(sample.token_ids) for state in states for sample in state.candidates]
    return {"metrics": {"samples": len(lengths), "mean_length": float(np.mean(lengths))}}


def run_calibration(inputs: CalibrationInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Write the policy's entropies (nats) before each token of sampled responses."""
    search = inputs.search
    pairs = read_pairs_table(inputs.pairs)
    problems = search.problems([pair.prompt for pair in pairs[:CALIBRATION_PROMPTS]])
    requests = [
        SampleRequest(
            p.prompt_ids,
            (),
            (stream_key(p.seed, p.prompt_id, "calibration"),),
            p.max_new_tokens,
            entropies=True,
        )
        for p in problems
    ]
    sampled = asyncio.run(search.engines.policy(search.dtype).sample_all(requests))
    entropies = [e for answer in sampled for e in answer.continuations[0].entropies]
    pq.write_table(pa.table({"entropy": pa.array(entropies, pa.float64())}), folder / ENTROPIES)
    progress.update(len(problems), len(problems))
    return {"metrics": {"mean_entropy": float(np.mean(entropies)), "tokens": len(entropies)}}


def counter(progress: ProgressBar, total: int) -> Callable[[object], None]:
    """Return a function that counts the finished prompts of ``total``."""
    progress.update(0, total)
    return lambda outcome: progress.advance()
