"""The choice of the engine for a method: the faster one in measurements, or the user's.

Measured only on CPUs (docs/benchmarks.md), where transformers samples and scores faster. It
computes a prompt once for all its samples, and reuses the states of scored candidates; with vLLM
each sample and each score is a separate request, which recomputes the last partial block.
"""

import importlib.util

from orchestrator.choices import Engine, EngineChoice
from orchestrator.engines.vllm.install import INSTALL
from orchestrator.scorers.kind import ScorerKind, kinds_in_order
from orchestrator.search.method import METHODS


def engine_of(choice: EngineChoice, method: str, kind: ScorerKind | None) -> Engine:
    """Return the engine of a method's policy and reward model.

    Args:
        choice: the user's; ``auto`` is the faster one in measurements.
        method: the name of a search method.
        kind: kind of the reward model; None if the method needs no scores.

    Raises:
        ValueError: the choice is vLLM, which does not support the method or the kind, or is not
            installed.
    """
    if choice != "vllm":
        return "transformers"
    if reason := not_by_vllm(method):
        raise ValueError(reason)
    if kind is not None and "vllm" not in kind.engines:
        valid = " or ".join(repr(n) for n, k in kinds_in_order().items() if "vllm" in k.engines)
        raise ValueError(f"vLLM scores the kind {valid}, and the reward model is {kind.name!r}")
    if importlib.util.find_spec("vllm") is None:
        raise ValueError(INSTALL)
    return "vllm"


def not_by_vllm(method: str) -> str:
    """Return why vLLM does not support a method, as a clause; empty if it does."""
    if method in METHODS and METHODS[method].needs_entropies:
        return f"{method} needs the policy's entropies, which vLLM does not return"
    return ""


def engine_notice(choice: EngineChoice, device: str) -> str:
    """Return a sentence about the engine that ``auto`` chose; empty for another choice."""
    if choice != "auto":
        return ""
    if device == "cpu":
        return "engine: transformers, measured faster than vLLM on CPUs (docs/benchmarks.md)"
    return f"engine: transformers; vLLM is not measured on {device} yet, engine vllm takes it"
