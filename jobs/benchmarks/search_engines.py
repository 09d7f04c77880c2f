"""Load the bare engines of `jobs/bench.py search`, each once per process."""

import gc
import importlib.util
from functools import lru_cache
from typing import Any, Literal

from actors.search import GC_THRESHOLDS
from jobs.benchmarks.search_cases import ModelSetup
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.engines.vllm.policy import VllmPolicy
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.scorers.spec import ScorerSpec

Engine = Literal["transformers", "vLLM"]


def engines(setup: ModelSetup, scores: bool) -> list[Engine]:
    """Return the available engines: vLLM if it is installed, for scores only in float32."""
    has_vllm = importlib.util.find_spec("vllm") is not None
    if scores and setup.setting.dtype != "float32":
        has_vllm = False
    return ["transformers", "vLLM"] if has_vllm else ["transformers"]


@lru_cache(maxsize=2)
def policy_of(setup: ModelSetup, engine: Engine) -> Any:
    """Return the policy with an engine."""
    gc.set_threshold(*GC_THRESHOLDS)  # as in search actors
    kind: Any = VllmPolicy if engine == "vLLM" else HuggingFacePolicy
    setting = setup.setting
    return kind(
        f"{setup.folder}/policy",
        device=setting.device,
        stop_at_eos=setup.stop_at_eos,
        dtype=setting.dtype,
    )


@lru_cache(maxsize=2)
def reward_of(setup: ModelSetup, engine: Engine) -> Any:
    """Return the reward model with an engine."""
    gc.set_threshold(*GC_THRESHOLDS)
    folder, device = f"{setup.folder}/reward", setup.setting.device
    if engine == "vLLM":
        return load_scorer(ScorerSpec(folder, engine="vllm"), setup.position, device=device)
    return SequenceScorer(folder, setup.position, device=device, dtype=setup.setting.dtype)
