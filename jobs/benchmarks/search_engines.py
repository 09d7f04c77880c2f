"""The bare engines of `jobs/bench.py search`, each loaded once a process."""

import gc
import importlib.util
from functools import lru_cache
from typing import Any, Literal

from actors.search import GC_THRESHOLDS
from jobs.benchmarks.search_setting import Place
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.engines.vllm.policy import VllmPolicy
from orchestrator.scorers.registry import load_scorer
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.scorers.sequence import SequenceScorer

Engine = Literal["transformers", "vLLM"]


def engines(place: Place, scores: bool) -> list[Engine]:
    """Those that can be asked here: vLLM where it is installed, for float32 scores."""
    there = importlib.util.find_spec("vllm") is not None
    if scores and place.setting.dtype != "float32":
        there = False
    return ["transformers", "vLLM"] if there else ["transformers"]


@lru_cache(maxsize=2)
def policy_of(place: Place, engine: Engine = "transformers") -> Any:
    """The policy."""
    gc.set_threshold(*GC_THRESHOLDS)  # as search actors have it
    kind: Any = VllmPolicy if engine == "vLLM" else HuggingFacePolicy
    setting = place.setting
    return kind(
        f"{place.folder}/policy", device=setting.device, ends=place.ends, dtype=setting.dtype
    )


@lru_cache(maxsize=2)
def reward_of(place: Place, engine: Engine = "transformers") -> Any:
    """The reward model."""
    gc.set_threshold(*GC_THRESHOLDS)
    folder, device = f"{place.folder}/reward", place.setting.device
    if engine == "vLLM":
        return load_scorer(ScorerSpec(folder, engine="vllm"), place.position, device=device)
    return SequenceScorer(folder, place.position, device=device, dtype=place.setting.dtype)
