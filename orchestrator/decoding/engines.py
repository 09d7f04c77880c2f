"""Which engine runs a method: the measured better one, unless the user names one.

Measured so far on CPUs alone (docs/benchmarks.md): there transformers samples and scores faster. It
reads a prompt once for all its samples, and keeps what it computed for a score; vLLM asks for each
sample and each score by itself, and reads a prompt again up to the last whole block.
"""

import importlib.util

from orchestrator.choices import Engine, EngineChoice, ScorerKind
from orchestrator.decoding.methods import not_by_vllm
from orchestrator.engines.vllm.process import INSTALL


def engine_of(wanted: EngineChoice, method: str, kind: ScorerKind | None) -> Engine:
    """The engine of a method's policy and reward model.

    Args:
        wanted: what the user says; ``auto`` is the measured better one.
        method: the name of a search method.
        kind: of the reward model; None where the method asks for no score.

    Raises:
        ValueError: vLLM is asked for, and does not run the method or the kind, or is not installed.
    """
    if wanted != "vllm":
        return "transformers"
    if reason := not_by_vllm(method):
        raise ValueError(reason)
    if kind not in (None, "sequence"):
        raise ValueError(f"vLLM scores the kind 'sequence', and the reward model is {kind!r}")
    if importlib.util.find_spec("vllm") is None:
        raise ValueError(INSTALL)
    return "vllm"


def told(wanted: EngineChoice, device: str) -> str:
    """A sentence on the choice of ``auto``, or nothing where the user chose."""
    if wanted != "auto":
        return ""
    if device == "cpu":
        return "engine: transformers, measured faster than vLLM on CPUs (docs/benchmarks.md)"
    return f"engine: transformers; vLLM is not measured on {device} yet, engine vllm takes it"
