"""The stages ``agreement/NAME``: score prefixes of held-out pairs, closed and open (appendix B).

The pairs are samples of the test prompts labelled by the task, or the held-out pairs that come with
the data. The evaluation computes rates and tests from the scores.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from actors.backends import ActorReward
from jobs.sweep.backends import FULL_LENGTH, Engines
from jobs.sweep.length_limits import TestPrompts
from orchestrator.conversations.chat import Chat
from orchestrator.data.tables import read_pairs_table
from orchestrator.evaluation.prefix_rates import POSITIONS
from orchestrator.evaluation.resampling import Floats
from orchestrator.records import PreferencePair
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.sample_files import read_samples
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.tasks.task import Task

PAIRS_PER_CALL = 400
SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class TestPairs:
    """The held-out pairs: no model was trained on their prompts.

    Attributes:
        task: determines the source of the pairs, and labels samples.
        pairs: folder of the stage that makes preference pairs.
        samples: file of the shared samples; None if the pairs come with the data.
        prompts: the test prompts.
        chat: chat format of the policy.
        per_prompt: number of pairs that are made from a prompt's samples.
        seed: seed of the run.
    """

    task: Task
    pairs: Path
    samples: Path | None
    prompts: TestPrompts
    chat: Chat
    per_prompt: int
    seed: int

    def read(self) -> list[PreferencePair]:
        """Return the pairs."""
        if self.samples is None:
            return read_pairs_table(self.pairs / "pairs_test.parquet")
        samples = read_samples(self.samples)
        pairs = []
        for prompt in self.prompts.fitting():
            candidates = samples[prompt.prompt_id].candidates
            for first, second in list(pairwise(candidates))[::2][: self.per_prompt]:
                texts = (
                    self.chat.response_text(first.token_ids),
                    self.chat.response_text(second.token_ids),
                )
                finished = first.finished, second.finished
                pair = self.task.prefer(prompt, texts, finished, self.seed)
                pairs += [pair] if pair else []
        return pairs


@dataclass(frozen=True)
class AgreementInputs:
    """Inputs of the step.

    Attributes:
        pairs: held-out pairs.
        scorer: reward model.
        engines: scorers in actors.
        grid: the G prefix lengths.
    """

    pairs: TestPairs
    scorer: ScorerSpec
    engines: Engines
    grid: Sequence[int]


def run(inputs: AgreementInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Write scores.npz: float64 (N, G + 1) for each position and side, the whole response last."""
    pairs = inputs.pairs.read()
    reward = inputs.engines.reward(inputs.scorer)
    arrays = asyncio.run(_scores(reward, pairs, inputs.grid, progress))
    np.savez(folder / "scores.npz", **arrays)  # type: ignore[arg-type]
    right = arrays["closed_chosen"][:, -1] > arrays["closed_rejected"][:, -1]
    return {"metrics": {"pairs": len(pairs), "pair_accuracy": float(right.mean())}}


async def _scores(
    reward: ActorReward,
    pairs: Sequence[PreferencePair],
    grid: Sequence[int],
    progress: ProgressBar,
) -> dict[str, Floats]:
    """Return scores (N, G + 1) for each side and position: at the grid's cuts, then in full."""
    arrays = {}
    cuts = [*grid, FULL_LENGTH]
    for number, side in enumerate(SIDES):
        rows: list[list[float]] = []
        for start in range(0, len(pairs), PAIRS_PER_CALL):
            chunk = [(p.prompt, getattr(p, side)) for p in pairs[start : start + PAIRS_PER_CALL]]
            rows += await reward.prefix_scores(chunk, cuts, POSITIONS)
            progress.update(number * len(pairs) + len(rows), len(SIDES) * len(pairs))
        scores = np.array(rows).reshape(len(pairs), len(POSITIONS), len(cuts))
        for index, position in enumerate(POSITIONS):
            arrays[f"{position}_{side}"] = scores[:, index]
    return arrays
