"""The policy actor: a Hugging Face policy engine behind Ray, one batch per call.

Every call names the policy, so that a restarted actor answers like the original one. The engine of
the last policy stays loaded.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import ray
import torch

from orchestrator.choices import Dtype, Engine
from orchestrator.decoding.backend import PolicyEngine
from orchestrator.decoding.bisect import answer_bisecting
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB
from orchestrator.search.engines import Ids, Sampled, SampleRequest, TopRequest, TopTokens
from orchestrator.search.problem import PromptFailed

RESTARTS = 3  # times that Ray restarts the actor and retries its calls


@dataclass(frozen=True)
class PolicySpec:
    """A policy: checkpoint folder or hub name, sampling, device and engine.

    Attributes:
        checkpoint: checkpoint folder or hub name.
        temperature: sampling temperature.
        top_p: probability mass of nucleus sampling.
        device: torch device name.
        threads: torch threads.
        stop_at_eos: whether an end token ends a response.
        dtype: dtype of the weights.
        engine: transformers or vllm.
        cache_mib: memory of the KV cache (MiB); None: the engine's default.
    """

    checkpoint: str
    temperature: float
    top_p: float
    device: str
    threads: int
    stop_at_eos: bool = True
    dtype: Dtype = "float32"
    engine: Engine = "transformers"
    cache_mib: int | None = None


def load_engine(spec: PolicySpec) -> PolicyEngine:
    """Load a policy with its engine."""
    if spec.engine == "vllm":
        from orchestrator.engines.vllm.policy import VllmPolicy

        return VllmPolicy(
            spec.checkpoint,
            spec.temperature,
            spec.top_p,
            spec.device,
            stop_at_eos=spec.stop_at_eos,
            dtype=spec.dtype,
            cache_mib=spec.cache_mib,
        )
    return load_transformers(spec)


def load_transformers(spec: PolicySpec) -> HuggingFacePolicy:
    """Load a policy with transformers, regardless of its ``engine``."""
    return HuggingFacePolicy(
        spec.checkpoint,
        spec.temperature,
        spec.top_p,
        spec.device,
        cache_mib=spec.cache_mib or MEMORY_MIB,
        stop_at_eos=spec.stop_at_eos,
        dtype=spec.dtype,
    )


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
class PolicyActor:
    """Samples continuations and computes next-token and response log-probabilities."""

    def __init__(self) -> None:
        self._engine: HuggingFacePolicy | None = None
        self._spec: PolicySpec | None = None

    def pid(self) -> int:
        """Return the id of the actor's process."""
        return os.getpid()

    def sample(
        self, spec: PolicySpec, requests: Sequence[SampleRequest]
    ) -> list[Sampled | PromptFailed]:
        """Sample the continuations of each request; a failed one gets its error."""
        engine = self._engine_for(spec)
        return answer_bisecting(engine.sample, requests, engine.clear_cache)

    def top_next_tokens(
        self, spec: PolicySpec, requests: Sequence[TopRequest]
    ) -> list[TopTokens | PromptFailed]:
        """Return the most probable next tokens of each request; errors as in ``sample``."""
        engine = self._engine_for(spec)
        return answer_bisecting(engine.top_next_tokens, requests, engine.clear_cache)

    def log_probs(self, spec: PolicySpec, rows: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Return log pi(y | x) in nats for each (prompt ids x, response ids y)."""
        return self._engine_for(spec).log_probs(rows)

    def clear_cache(self, spec: PolicySpec) -> None:
        """Clear the KV cache."""
        self._engine_for(spec).clear_cache()

    def _engine_for(self, spec: PolicySpec) -> HuggingFacePolicy:
        torch.set_num_threads(spec.threads)
        if self._engine is None or self._spec != spec:
            self._engine = load_transformers(spec)
            self._spec = spec
        return self._engine
