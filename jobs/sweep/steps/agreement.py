"""Step 8a: prefix scores of held-out preference pairs by one scorer, closed and open (appendix B).

The pairs are samples of the test prompts labelled by the task, or the held-out pairs that come with
the data. What the scores say is worked out in the evaluation.
"""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from actors.backends import ActorReward
from jobs.sweep.backends import WHOLE, reward_of
from jobs.sweep.responses import read_drawn
from jobs.sweep.steps.search import test_prompts
from jobs.sweep.sweep import Figures, Step, Sweep
from orchestrator.choices import Position
from orchestrator.data.tables import read_pairs_table
from orchestrator.records import PreferencePair
from orchestrator.stages.progress import Meter

PAIRS_PER_CALL = 400
POSITIONS: tuple[Position, ...] = ("closed", "open")
SIDES = ("chosen", "rejected")


def test_pairs(sweep: Sweep) -> list[PreferencePair]:
    """Held-out pairs: no model was trained on their prompts."""
    task = sweep.config.data
    if not task.samples_pairs:
        return read_pairs_table(sweep.file("pairs", "pairs_test.parquet"))
    drawn = read_drawn(sweep.file("samples", "samples.parquet"))
    chat = sweep.chat("policy")
    pairs = []
    for prompt in test_prompts(sweep):
        samples = drawn[prompt.prompt_id].candidates
        neighbours = list(pairwise(samples))[::2][: sweep.config.evaluation.pairs_per_prompt]
        for first, second in neighbours:
            texts = chat.response_text(first.token_ids), chat.response_text(second.token_ids)
            finished = first.finished, second.finished
            pair = task.prefer(prompt, texts, finished, sweep.config.seed)
            pairs += [pair] if pair else []
    return pairs


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Writes scores.npz: float64 (N, G + 1) for each position and side, the whole response last."""
    pairs = test_pairs(sweep)
    reward = reward_of(sweep, step.options["scorer"])
    arrays = asyncio.run(_scores(reward, pairs, sweep.config.evaluation.agreement_grid, meter))
    np.savez(folder / "scores.npz", **arrays)  # type: ignore[arg-type]
    right = arrays["closed_chosen"][:, -1] > arrays["closed_rejected"][:, -1]
    return {"metrics": {"pairs": len(pairs), "pair_accuracy": float(right.mean())}}


async def _scores(
    reward: ActorReward, pairs: Sequence[PreferencePair], grid: Sequence[int], meter: Meter
) -> dict[str, np.ndarray]:
    """Scores (N, G + 1) of both sides in both positions, at the grid's cuts and of the whole."""
    arrays = {}
    cuts = [*grid, WHOLE]
    for number, side in enumerate(SIDES):
        rows: list[list[float]] = []
        for start in range(0, len(pairs), PAIRS_PER_CALL):
            chunk = [(p.prompt, getattr(p, side)) for p in pairs[start : start + PAIRS_PER_CALL]]
            rows += await reward.prefix_scores(chunk, cuts, POSITIONS)
            meter.update(number * len(pairs) + len(rows), len(SIDES) * len(pairs))
        scores = np.array(rows).reshape(len(pairs), len(POSITIONS), len(cuts))
        for index, position in enumerate(POSITIONS):
            arrays[f"{position}_{side}"] = scores[:, index]
    return arrays
