"""Compare vLLM's `token_classify` with the packed pass of transformers.

Both compute open scores of every prefix through their scorers, after a warm-up, with the same
number of threads. `other` is the packed pass.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path

from jobs.benchmarks.measure import compare
from jobs.benchmarks.names import TOKEN_CLASSIFY
from jobs.benchmarks.prefixes import pairs_of
from jobs.benchmarks.setting import Setting, forward_flops, random_model
from orchestrator.checkpoints.checkpoint import save_checkpoint
from orchestrator.choices import Engine
from orchestrator.conversations.tokenizers import SPECIAL, word_tokenizer
from orchestrator.rewards.packed import prefix_row
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.scorer import Scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import Ids

PAIRS = 32
_ENGINES: tuple[Engine, Engine] = ("vllm", "transformers")


def token_classify_result(repeats: int, setting: Setting) -> dict[str, object]:
    """Return the times of the two engines, measured alternately.

    Raises:
        ModuleNotFoundError: vLLM is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [f"w{i}" for i in range(setting.vocabulary - len(SPECIAL))]
        save_checkpoint(random_model(setting), word_tokenizer(words), Path(folder))
        ours, other = (partial(_score, folder, engine, setting) for engine in _ENGINES)
        warm = partial(
            _responses, setting.vocabulary
        )  # models are loaded in the first, untimed run
        measured = compare(ours, other, warm, repeats, setting.device)
    rows = [
        prefix_row(x, [y], [cut], ())
        for x, y, cut in zip(*_responses(setting.vocabulary), strict=True)
    ]
    return {
        "name": TOKEN_CLASSIFY,
        **asdict(measured),
        "ratio": measured.other_s / measured.ours_s,
        "floor": None,
        "ceiling": None,
        "flops": forward_flops(setting, rows) / measured.ours_s,
    }


def _score(folder: str, engine: Engine, setting: Setting) -> None:
    _scorer(folder, engine, setting.device).prefix_scores(*_responses(setting.vocabulary))


@lru_cache(maxsize=1)
def _scorer(folder: str, engine: Engine, device: str) -> Scorer:
    return load_scorer(ScorerSpec(folder, engine=engine), "open", None, device, full_responses=True)


@lru_cache(maxsize=1)
def _responses(vocabulary: int) -> tuple[list[Ids], list[Ids], list[Sequence[int]]]:
    """Return prompts, responses, and the lengths of all prefixes of each response."""
    rows = [(x, y) for x, *ys in pairs_of(PAIRS, vocabulary) for y in ys]
    return [x for x, _ in rows], [y for _, y in rows], [range(1, len(y) + 1) for _, y in rows]
