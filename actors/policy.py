"""The policy actor: a Hugging Face policy engine behind Ray, one batch a call.

Every call names the checkpoint and how to sample, so that an actor that was started again answers
as before; the engine of the last checkpoint stays loaded.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import ray
import torch

from orchestrator.choices import Dtype, Engine
from orchestrator.decoding.backend import PolicyEngine
from orchestrator.decoding.bisect import each_apart
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB
from orchestrator.search.engines import Ids, Sampled, SampleRequest, TopRequest, TopTokens
from orchestrator.search.problem import PromptFailed

RESTARTS = 3  # times that Ray starts the actor anew; its calls are then made again


@dataclass(frozen=True)
class PolicyPlace:
    """Which policy answers: checkpoint folder or hub name, sampling, device and CPU threads."""

    checkpoint: str
    temperature: float
    top_p: float
    device: str
    threads: int
    ends: bool = True  # whether the end token ends a response
    dtype: Dtype = "float32"
    engine: Engine = "transformers"
    cache_mib: int | None = None  # of keys and values; None is the engine's default


def load_engine(place: PolicyPlace) -> PolicyEngine:
    """Loads the policy of a place."""
    if place.engine == "vllm":
        from orchestrator.engines.vllm.policy import VllmPolicy

        return VllmPolicy(
            place.checkpoint,
            place.temperature,
            place.top_p,
            place.device,
            ends=place.ends,
            dtype=place.dtype,
            cache_mib=place.cache_mib,
        )
    return load_transformers(place)


def load_transformers(place: PolicyPlace) -> HuggingFacePolicy:
    """Loads the policy of a place with transformers, which gives log-probabilities too."""
    return HuggingFacePolicy(
        place.checkpoint,
        place.temperature,
        place.top_p,
        place.device,
        memory_mib=place.cache_mib or MEMORY_MIB,
        ends=place.ends,
        dtype=place.dtype,
    )


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
class PolicyActor:
    """Samples continuations and gives likeliest next tokens."""

    def __init__(self) -> None:
        self._engine: HuggingFacePolicy | None = None
        self._place: PolicyPlace | None = None

    def process(self) -> int:
        """The number of its process."""
        return os.getpid()

    def sample(
        self, place: PolicyPlace, requests: Sequence[SampleRequest]
    ) -> list[Sampled | PromptFailed]:
        """Draws the continuations of all requests; one that fails by itself has its fault."""
        engine = self._engine_at(place)
        return each_apart(engine.sample, requests, engine.forget)

    def top(
        self, place: PolicyPlace, requests: Sequence[TopRequest]
    ) -> list[TopTokens | PromptFailed]:
        """Gives the likeliest next tokens of all requests, as ``sample``."""
        engine = self._engine_at(place)
        return each_apart(engine.top, requests, engine.forget)

    def log_probs(self, place: PolicyPlace, texts: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Log pi(y | x) in nats of whole responses."""
        return self._engine_at(place).log_probs(texts)

    def forget(self, place: PolicyPlace) -> None:
        """Drops the keys and values that are kept."""
        self._engine_at(place).forget()

    def _engine_at(self, place: PolicyPlace) -> HuggingFacePolicy:
        torch.set_num_threads(place.threads)
        if self._engine is None or self._place != place:
            self._engine = load_transformers(place)
            self._place = place
        return self._engine
