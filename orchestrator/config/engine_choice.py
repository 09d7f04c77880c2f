"""The choice of the engine for a method: the user's, by default transformers.

``auto``: transformers, which is faster in the CPU benchmarks (docs/benchmarks.md); vLLM on GPUs is
not measured yet. Transformers computes a prompt once for all its samples, and reuses the states of
scored candidates; with vLLM each sample and each score is a separate request, which recomputes the
last partial block.
"""

import importlib.util

from orchestrator.choices import Engine, EngineChoice
from orchestrator.engines.vllm.install import INSTALL
from orchestrator.scorers.kind import ScorerKind, kinds_in_order
from orchestrator.search.method import METHODS


def engine_of(choice: EngineChoice, method: str | None, kind: ScorerKind | None) -> Engine:
    """Return the engine of a method's policy and reward model.

    Args:
        choice: the user's; ``auto`` is transformers.
        method: the name of a search method; None: any method.
        kind: kind of the reward model; None if the method needs no scores.

    Raises:
        ValueError: the choice is vLLM, which does not support the method or the kind, or is not
            installed.
    """
    if choice != "vllm":
        return "transformers"
    if method is not None and (reason := vllm_unsupported_reason(method)):
        raise ValueError(reason)
    if kind is not None and "vllm" not in kind.engines:
        valid = " or ".join(repr(n) for n, k in kinds_in_order().items() if "vllm" in k.engines)
        raise ValueError(
            f"vLLM supports only reward models of kind {valid}; this one is of kind {kind.name!r}"
        )
    if importlib.util.find_spec("vllm") is None:
        raise ValueError(INSTALL)
    return "vllm"


def vllm_unsupported_reason(method: str) -> str:
    """Return why vLLM does not support a method, as a clause; empty if it does."""
    if method in METHODS and METHODS[method].needs_entropies:
        return f"{method} needs the policy's entropies, which vLLM does not return"
    return ""


def engine_notice(choice: EngineChoice, device: str) -> str:
    """Return a notice of the engine that ``auto`` stands for; empty for another choice."""
    if choice != "auto":
        return ""
    if device == "cpu":
        return "engine: transformers, measured faster than vLLM on CPUs (docs/benchmarks.md)"
    return (
        f"engine: transformers; vLLM has not been measured on {device} yet; set engine to vllm to"
        " use it"
    )
