"""Step 8a: prefix scores of held-out preference pairs by one scorer, closed and open (appendix B).

The pairs are labelled samples of the test prompts in the embedded world, else the data's own
held-out pairs. What the scores say is worked out in the evaluation.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import ray

from jobs.steps.responses import read_drawn
from jobs.steps.search import reward_place, test_prompts
from jobs.steps.sweep import Figures, Step, Sweep
from orchestrator.config.sections import HelpdeskData
from orchestrator.data.tables import read_pairs_table
from orchestrator.engines.chat import load_chat
from orchestrator.records import PreferencePair
from orchestrator.stages.progress import Meter
from orchestrator.world.preferences import label_pair

PAIRS_PER_CALL = 500
POSITIONS = ("closed", "open")
WHOLE = 10**6  # a cut past every response: the whole of it


def test_pairs(sweep: Sweep) -> list[PreferencePair]:
    """Held-out pairs: no model was trained on their prompts."""
    data = sweep.config.data
    if not isinstance(data, HelpdeskData):
        return read_pairs_table(sweep.file("pairs", "pairs_test.parquet"))
    drawn = read_drawn(sweep.file("samples", "samples.parquet"))
    chat = load_chat(sweep.checkpoint("policy"))
    pairs = []
    for prompt in test_prompts(sweep):
        samples = drawn[prompt.prompt_id].continuations
        neighbours = list(pairwise(samples))[::2][: sweep.config.evaluation.pairs_per_prompt]
        for first, second in neighbours:
            pair = label_pair(
                prompt,
                chat.text(first.token_ids),
                chat.text(second.token_ids),
                (first.stop == "end", second.stop == "end"),
                data.preference_sharpness,
                sweep.config.seed,
            )
            pairs += [pair] if pair else []
    return pairs


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Writes scores.npz: float64 (N, G + 1) for each position and side, the whole response last."""
    scorer = step.options["scorer"]
    pairs = test_pairs(sweep)
    chat = load_chat(sweep.checkpoint(scorer))
    cuts = [*sweep.config.evaluation.agreement_grid, WHOLE]
    arrays: dict[str, np.ndarray] = {}
    done = 0
    for position in POSITIONS:
        place = reward_place(sweep, scorer, sweep.cores, position)
        for side in ("chosen", "rejected"):
            rows: list[list[float]] = []
            for start in range(0, len(pairs), PAIRS_PER_CALL):
                chunk = pairs[start : start + PAIRS_PER_CALL]
                prompts = [chat.prompt_ids(pair.prompt.messages) for pair in chunk]
                responses = [chat.response_ids(getattr(pair, side)) for pair in chunk]
                rows += ray.get(
                    sweep.reward_actor().prefix_scores.remote(
                        place, prompts, responses, [cuts] * len(chunk)
                    )
                )
                done += len(chunk)
                meter.update(done, 4 * len(pairs))
            arrays[f"{position}_{side}"] = np.array(rows)
    np.savez(folder / "scores.npz", **arrays)  # type: ignore[arg-type]
    right = arrays["closed_chosen"][:, -1] > arrays["closed_rejected"][:, -1]
    return {"metrics": {"pairs": len(pairs), "pair_accuracy": float(right.mean())}}
